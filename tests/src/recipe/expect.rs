//! What a line printed, compared with what a page says that it prints.
//!
//! Pages were written with other versions of the same programs: of a ping only the numbers in the
//! line of its statistics count. Every other line must be printed as it stands.

/// The first of the lines expected that is not in `printed`.
pub(super) fn missing<'a>(expected: &'a [String], printed: &str) -> Option<&'a str> {
    let lines: Vec<&str> = printed.lines().map(str::trim).collect();
    let statistics: Vec<_> = lines.iter().filter_map(|line| counts(line)).collect();
    let is_there = |line: &str| {
        let of_ping = line.starts_with("PING ") || line.starts_with("round-trip ");
        of_ping || counts(line).map_or_else(|| lines.contains(&line), |counts| statistics.contains(&counts))
    };
    expected.iter().map(String::as_str).find(|line| !is_there(line))
}

/// True if no answer to a ping is expected.
pub(super) fn no_answer(expected: &[String]) -> bool {
    expected.iter().any(|line| counts(line).is_some_and(|(_, received)| received == 0))
}

/// Packets transmitted and received, from a line of statistics.
fn counts(line: &str) -> Option<(u32, u32)> {
    let mut parts = line.split(", ");
    let sent = parts.next()?.strip_suffix(" packets transmitted")?;
    let received = parts.next()?.strip_suffix(" received").map(|part| part.trim_end_matches(" packets"))?;
    Some((sent.parse().ok()?, received.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Vec<String> {
        text.lines().map(str::to_owned).collect()
    }

    #[test]
    fn statistics_are_compared_by_their_numbers() {
        let busybox = "PING 10.2.2.2 (10.2.2.2): 56 data bytes\n\n--- 10.2.2.2 ping statistics ---\n\
                       1 packets transmitted, 1 packets received, 0% packet loss\n";
        let page = "PING 10.2.2.2 (10.2.2.2): 48 data bytes\n--- 10.2.2.2 ping statistics ---\n\
                    1 packets transmitted, 1 received, 0% packet loss, time 0ms\nround-trip 1/2/3 ms";
        assert_eq!(missing(&lines(page), busybox), None);
        let none = lines("1 packets transmitted, 0 received, 100% packet loss, time 0ms");
        assert_eq!(missing(&none, busybox), Some(none[0].as_str()));
        assert!(no_answer(&none) && !no_answer(&lines(page)));
    }

    #[test]
    fn any_other_line_is_there_or_missing() {
        assert_eq!(missing(&lines("10.2.1.1"), "  10.2.1.1\n"), None);
        assert_eq!(missing(&lines("10.2.1.1"), "10.2.1.10\n"), Some("10.2.1.1"));
    }
}
