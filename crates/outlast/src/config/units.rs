//! Durations and sizes as people write them: `20s`, `500ms`, `10MB`.

use std::time::Duration;

/// The longest duration the config takes: beyond a week a deadline is a mistake.
pub(super) const LONGEST: Duration = Duration::from_secs(7 * 24 * 3600);

/// The longest span of a run the config takes.
pub(super) const LONGEST_SPAN: Duration = Duration::from_secs(366 * 24 * 3600);

/// Reads `500ms`, `20s`, `5m`, `1h`, `1.5s`. More than zero, at most a week.
///
/// # Errors
/// A clause for the end of "`...` is not a duration: ".
pub(super) fn duration(text: &str) -> Result<Duration, &'static str> {
    within(text, LONGEST, "it is longer than a week")
}

/// Reads what [`duration`] does, and up to 366 days: how long a run, or a person, may take.
///
/// # Errors
/// The same.
pub(super) fn span(text: &str) -> Result<Duration, &'static str> {
    within(text, LONGEST_SPAN, "it is longer than 366 days")
}

fn within(text: &str, longest: Duration, too_long: &'static str) -> Result<Duration, &'static str> {
    const FORM: &str = "it is not a number and a unit, like \"500ms\", \"20s\", \"5m\", \"1h\" or \"1d\"";
    let (number, unit) = split(text).ok_or(FORM)?;
    let seconds = match unit {
        "ms" => number / 1e3,
        "s" => number,
        "m" | "min" => number * 60.0,
        "h" => number * 3600.0,
        "d" => number * 86_400.0,
        _ => return Err(FORM),
    };
    if number < 0.0 || text.starts_with('-') {
        return Err("it is negative");
    }
    let nanos = (seconds * 1e9).round();
    match nanos {
        _ if nanos < 1.0 => Err("it is zero"),
        _ if nanos > longest.as_nanos() as f64 => Err(too_long),
        _ => Ok(Duration::from_nanos(nanos as u64)),
    }
}

/// Writes a duration the shortest way [`duration`] reads back.
pub fn show_duration(duration: Duration) -> String {
    let millis = duration.as_millis();
    match millis {
        _ if !duration.subsec_nanos().is_multiple_of(1_000_000) => format!("{}ms", duration.as_secs_f64() * 1e3),
        _ if !millis.is_multiple_of(1000) => format!("{millis}ms"),
        _ if millis >= 172_800_000 && millis.is_multiple_of(86_400_000) => format!("{}d", millis / 86_400_000),
        _ if millis >= 3_600_000 && millis.is_multiple_of(3_600_000) => format!("{}h", millis / 3_600_000),
        _ if millis >= 300_000 && millis.is_multiple_of(60_000) => format!("{}m", millis / 60_000),
        _ => format!("{}s", millis / 1000),
    }
}

/// Reads `512`, `64KB`, `10MB`, `1GB`, `10MiB`. K is 1,000 and Ki is 1,024. More than zero, at most 4 GB.
///
/// # Errors
/// A clause for the end of "`...` is not a size: ".
pub(super) fn size(text: &str) -> Result<u64, &'static str> {
    const FORM: &str = "it is not a number and a unit, like \"64KB\", \"10MB\" or \"10MiB\"";
    let (number, unit) = split(text).ok_or(FORM)?;
    let factor = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 1.0,
        "k" | "kb" => 1e3,
        "m" | "mb" => 1e6,
        "g" | "gb" => 1e9,
        "kib" => 1024.0,
        "mib" => 1024.0 * 1024.0,
        "gib" => 1024.0 * 1024.0 * 1024.0,
        _ => return Err(FORM),
    };
    if number < 0.0 {
        return Err("it is negative");
    }
    let bytes = (number * factor).round();
    match bytes {
        _ if bytes < 1.0 => Err("it is zero"),
        _ if bytes > f64::from(u32::MAX) => Err("it is more than 4 GB"),
        _ => Ok(bytes as u64),
    }
}

/// A number and the unit after it, with or without a space between.
fn split(text: &str) -> Option<(f64, &str)> {
    let text = text.trim();
    let end = text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let number: f64 = number.trim().replace('_', "").parse().ok()?;
    number.is_finite().then_some((number, unit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_people_write_them() {
        for (text, millis) in
            [("500ms", 500), ("20s", 20_000), ("1.5s", 1500), ("5m", 300_000), ("2 min", 120_000), ("1h", 3_600_000)]
                .into_iter()
                .chain([("1d", 86_400_000)])
        {
            assert_eq!(duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for (text, why) in [("0s", "it is zero"), ("-1s", "it is negative"), ("8000h", "it is longer than a week")] {
            assert_eq!(duration(text), Err(why), "{text}");
        }
        assert_eq!(span("90d"), Ok(Duration::from_secs(90 * 86_400)));
        assert_eq!(span("367d"), Err("it is longer than 366 days"));
        for text in ["", "20", "s", "20 parsecs", "1s 2s", "nan s", "inf", "1e999s"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_shown_duration_reads_back_the_same() {
        for millis in
            [1, 999, 1000, 1500, 20_000, 61_000, 120_000, 600_000, 3_600_000, 5_400_000, 86_400_000, 604_800_000]
        {
            let duration = Duration::from_millis(millis);
            assert_eq!(super::duration(&show_duration(duration)), Ok(duration));
        }
    }

    #[test]
    fn sizes_are_read_as_people_write_them() {
        for (text, bytes) in [("512", 512), ("64KB", 64_000), ("10MB", 10_000_000), ("1 MiB", 1 << 20), ("1_000", 1000)]
        {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for text in ["", "MB", "10XB", "0", "-1KB", "5GB"] {
            assert!(size(text).is_err(), "{text}");
        }
    }
}
