//! One scrape on its way into text.

use super::families::{Family, Kind};
use metrics::{Key, Label, Level, Metadata, Recorder};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusRecorder};
use std::collections::BTreeMap;
use std::fmt::Write;

static METADATA: Metadata<'static> = Metadata::new("weave", Level::INFO, None);

/// Values, each of a family and with its labels.
///
/// What there is little of goes through the exporter of the `metrics` crates. That costs some
/// microseconds a line: what there is for each peer or shard is written directly, as are
/// histograms counted elsewhere and counters of fractions, which the exporter does not take.
pub(super) struct Sheet {
    recorder: PrometheusRecorder,
    direct: BTreeMap<&'static str, (&'static Family, String)>,
}

impl Sheet {
    pub(super) fn new() -> Self {
        Self { recorder: PrometheusBuilder::new().build_recorder(), direct: BTreeMap::new() }
    }

    /// A counter.
    pub(super) fn count(&mut self, family: &'static Family, labels: &[&str], value: u64) {
        debug_assert_eq!(family.kind, Kind::Counter, "{}", family.name);
        if family.is_of_many() {
            return self.line(family, labels, value);
        }
        self.recorder.register_counter(&key(family, labels), &METADATA).absolute(value);
    }

    /// A gauge.
    pub(super) fn set(&mut self, family: &'static Family, labels: &[&str], value: f64) {
        debug_assert_eq!(family.kind, Kind::Gauge, "{}", family.name);
        if family.is_of_many() {
            return self.line(family, labels, value);
        }
        self.recorder.register_gauge(&key(family, labels), &METADATA).set(value);
    }

    /// A gauge of something counted.
    #[expect(clippy::cast_precision_loss, reason = "exact below 2^53")]
    pub(super) fn level(&mut self, family: &'static Family, labels: &[&str], value: u64) {
        self.set(family, labels, value as f64);
    }

    /// A counter of seconds.
    pub(super) fn count_seconds(&mut self, family: &'static Family, value: f64) {
        debug_assert_eq!(family.kind, Kind::Counter, "{}", family.name);
        self.line(family, &[], value);
    }

    fn line(&mut self, family: &'static Family, labels: &[&str], value: impl std::fmt::Display) {
        let (_, lines) = self.direct.entry(&family.name).or_insert((family, String::new()));
        lines.push_str(&family.name);
        let mut separator = '{';
        for (name, value) in family.labels.iter().zip(labels) {
            lines.push(separator);
            lines.push_str(name);
            lines.push_str("=\"");
            escape(value, lines);
            lines.push('"');
            separator = ',';
        }
        let end = if separator == ',' { "}" } else { "" };
        let _ = writeln!(lines, "{end} {value}");
    }

    /// A histogram: the upper bounds of its buckets, seconds, how many are in each and, last,
    /// beyond all; and the sum of all.
    pub(super) fn histogram(
        &mut self,
        family: &'static Family,
        labels: &[&str],
        bounds: &[f64],
        counts: &[u64],
        sum: f64,
    ) {
        debug_assert_eq!(family.kind, Kind::Histogram, "{}", family.name);
        let (_, lines) = self.direct.entry(&family.name).or_insert((family, String::new()));
        // Only labels that the router makes itself: there is nothing to escape.
        let labels: Vec<String> =
            family.labels.iter().zip(labels).map(|(name, value)| format!("{name}=\"{value}\"")).collect();
        let with = |more: &str| {
            let all: Vec<&str> =
                labels.iter().map(String::as_str).chain((!more.is_empty()).then_some(more)).collect();
            if all.is_empty() { String::new() } else { format!("{{{}}}", all.join(",")) }
        };
        let name = &family.name;
        let mut total = 0;
        let bounds = bounds.iter().map(f64::to_string).chain(["+Inf".to_owned()]);
        for (bound, count) in bounds.zip(counts) {
            total += count;
            let _ = writeln!(lines, "{name}_bucket{} {total}", with(&format!("le=\"{bound}\"")));
        }
        let _ = writeln!(lines, "{name}_sum{} {sum}\n{name}_count{} {total}", with(""), with(""));
    }

    /// The text of all.
    pub(super) fn finish(self) -> String {
        for family in super::families::all() {
            let (name, help) = (family.name.to_string().into(), family.help.to_string().into());
            match family.kind {
                Kind::Counter => self.recorder.describe_counter(name, None, help),
                Kind::Gauge => self.recorder.describe_gauge(name, None, help),
                Kind::Histogram => {}
            }
        }
        let mut text = self.recorder.handle().render();
        for (name, (family, lines)) in self.direct {
            let kind = family.kind.name();
            let _ = writeln!(text, "# HELP {name} {}\n# TYPE {name} {kind}\n{lines}", family.help);
        }
        text
    }
}

/// The value of a label as it is written.
fn escape(value: &str, text: &mut String) {
    for character in value.chars() {
        match character {
            '\\' => text.push_str("\\\\"),
            '"' => text.push_str("\\\""),
            '\n' => text.push_str("\\n"),
            other => text.push(other),
        }
    }
}

fn key(family: &'static Family, labels: &[&str]) -> Key {
    debug_assert_eq!(family.labels.len(), labels.len(), "{}", family.name);
    let labels = family.labels.iter().zip(labels).map(|(name, value)| Label::new(*name, (*value).to_owned()));
    Key::from_parts(&*family.name, labels.collect::<Vec<_>>())
}
