const report = document.getElementById("report");
new EventSource("events").addEventListener("report", (event) => {
  report.textContent = JSON.stringify(JSON.parse(event.data), null, 2);
});
