//! How long a provider asks to be left alone, in every spelling seen.

use super::said::Said;
use outlast_model::{Failure, Wall};
use std::time::Duration;

/// The longest wait that is believed. A provider that asks for more is asked again after this: an hour of one
/// call is little, and an absurd value (or a clock an age apart) must not take a target out for good.
pub const RETRY_AFTER_MAX: Duration = Duration::from_secs(3600);

/// The wait asked for by headers or body, bounded by [`RETRY_AFTER_MAX`]. Only for failures that time can heal.
pub(super) fn asked<'h>(
    failure: Failure,
    header: impl Fn(&str) -> Option<&'h str>,
    said: &Said,
    now: Wall,
) -> Option<Duration> {
    if !heals(failure) {
        return None;
    }
    let wait = in_header(&header, now).or_else(|| said.stated_wait()).or_else(|| {
        // Reset headers come with every reply of some providers; they say something only when a limit was met.
        (failure == Failure::RateLimited).then(|| resets(&header, said, now)).flatten()
    });
    wait.map(|wait| wait.min(RETRY_AFTER_MAX))
}

/// The wait a body without headers asks for.
pub(super) fn said(failure: Failure, said: &Said) -> Option<Duration> {
    heals(failure).then(|| said.stated_wait()).flatten().map(|wait| wait.min(RETRY_AFTER_MAX))
}

fn heals(failure: Failure) -> bool {
    matches!(
        failure,
        Failure::RateLimited
            | Failure::Overloaded
            | Failure::ServerError
            | Failure::QuotaExhausted
            | Failure::Timeout(_)
            | Failure::Connection(_)
    )
}

/// `retry-after-ms` before `retry-after`, since it is finer; a zero in it means that it does not know.
fn in_header<'h>(header: &impl Fn(&str) -> Option<&'h str>, now: Wall) -> Option<Duration> {
    let millis = ["retry-after-ms", "x-ms-retry-after-ms"].iter().find_map(|name| {
        let wait = header(name)?.trim().parse::<f64>().ok().and_then(|ms| seconds(ms / 1e3))?;
        (wait > Duration::ZERO).then_some(wait)
    });
    millis.or_else(|| {
        let value = header("retry-after")?.trim();
        value
            .parse::<f64>()
            .ok()
            .and_then(seconds)
            .or_else(|| until(http_date(value)?, now))
            .or_else(|| duration(value))
    })
}

/// The bucket that is empty says when it refills; if none says it is empty, the slowest one bounds the wait.
fn resets<'h>(header: &impl Fn(&str) -> Option<&'h str>, said: &Said, now: Wall) -> Option<Duration> {
    /// (remaining, reset)
    const BUCKETS: &[(&str, &str)] = &[
        ("x-ratelimit-remaining-requests", "x-ratelimit-reset-requests"),
        ("x-ratelimit-remaining-tokens", "x-ratelimit-reset-tokens"),
        ("x-ratelimit-remaining-input-images", "x-ratelimit-reset-input-images"),
        ("x-ratelimit-remaining-requests-minute", "x-ratelimit-reset-requests-minute"),
        ("x-ratelimit-remaining-tokens-minute", "x-ratelimit-reset-tokens-minute"),
        ("x-ratelimit-remaining-requests-hour", "x-ratelimit-reset-requests-hour"),
        ("x-ratelimit-remaining-tokens-hour", "x-ratelimit-reset-tokens-hour"),
        ("x-ratelimit-remaining-requests-day", "x-ratelimit-reset-requests-day"),
        ("x-ratelimit-remaining-tokens-day", "x-ratelimit-reset-tokens-day"),
        ("x-ratelimit-remaining", "x-ratelimit-reset"),
        ("ratelimit-remaining", "ratelimit-reset"),
        ("anthropic-ratelimit-requests-remaining", "anthropic-ratelimit-requests-reset"),
        ("anthropic-ratelimit-tokens-remaining", "anthropic-ratelimit-tokens-reset"),
        ("anthropic-ratelimit-input-tokens-remaining", "anthropic-ratelimit-input-tokens-reset"),
        ("anthropic-ratelimit-output-tokens-remaining", "anthropic-ratelimit-output-tokens-reset"),
        ("anthropic-ratelimit-unified-remaining", "anthropic-ratelimit-unified-reset"),
    ];
    let (mut empty, mut slowest) = (None, None);
    for (remaining, reset) in BUCKETS {
        let Some(wait) = header(reset).and_then(|value| reset_in(value, now)) else { continue };
        slowest = slowest.max(Some(wait));
        if header(remaining).and_then(|left| left.trim().parse::<f64>().ok()).is_some_and(|left| left <= 0.0) {
            empty = empty.max(Some(wait));
        }
    }
    empty.or(slowest).or_else(|| said.reset.as_deref().and_then(|value| reset_in(value, now)))
}

/// A reset: a duration (`6m0s`), seconds from now, an epoch in seconds or milliseconds, or an RFC 3339 date.
fn reset_in(value: &str, now: Wall) -> Option<Duration> {
    let value = value.trim();
    if let Ok(number) = value.parse::<f64>() {
        return match number {
            // Past 2001 as milliseconds, past 2001 as seconds: an epoch. Less is a wait.
            ms if ms >= 1e12 => until(Wall(ms as i64), now),
            secs if secs >= 1e9 => until(Wall((secs * 1e3) as i64), now),
            secs => seconds(secs),
        };
    }
    duration(value).or_else(|| until(rfc3339(value)?, now))
}

/// Time from now until then; zero once it has passed.
fn until(then: Wall, now: Wall) -> Option<Duration> {
    Some(Duration::from_millis(u64::try_from(then.0.saturating_sub(now.0)).unwrap_or(0)))
}

/// A finite, not negative number of seconds, capped.
pub(super) fn seconds(seconds: f64) -> Option<Duration> {
    (seconds.is_finite() && seconds >= 0.0).then(|| Duration::from_secs_f64(seconds.min(RETRY_AFTER_MAX.as_secs_f64())))
}

/// A whole text that is a duration: `20ms`, `1.5s`, `6m0s`, `1h2m3s`.
pub(super) fn duration(text: &str) -> Option<Duration> {
    let (wait, rest) = leading_duration(text.trim())?;
    rest.trim().is_empty().then_some(wait)
}

/// A wait told in prose: "try again in 7.66s", "retry after 12 seconds". `message` is lower case.
pub(super) fn in_prose(message: &str) -> Option<Duration> {
    const BEFORE: &[&str] = &["try again in ", "retry in ", "retry after ", "again after ", "retrying in ", "wait "];
    BEFORE.iter().find_map(|before| {
        let at = message.find(before)? + before.len();
        Some(leading_duration(&message[at..])?.0)
    })
}

/// The duration a text begins with, and the rest. Several parts add up.
fn leading_duration(text: &str) -> Option<(Duration, &str)> {
    let mut rest = text;
    let mut total: Option<f64> = None;
    loop {
        let part = rest.trim_start_matches([' ', ',']);
        let digits = part.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(part.len());
        let letters = part[digits..].trim_start();
        let unit = letters.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(letters.len());
        let (Ok(number), Some(scale)) = (part[..digits].parse::<f64>(), scale(&letters[..unit])) else { break };
        total = Some(total.unwrap_or(0.0) + number * scale);
        rest = &letters[unit..];
    }
    Some((seconds(total?)?, rest))
}

fn scale(unit: &str) -> Option<f64> {
    Some(match unit {
        "ms" | "millisecond" | "milliseconds" => 1e-3,
        "s" | "sec" | "secs" | "second" | "seconds" => 1.0,
        "m" | "min" | "mins" | "minute" | "minutes" => 60.0,
        "h" | "hr" | "hour" | "hours" => 3600.0,
        "d" | "day" | "days" => 86_400.0,
        _ => return None,
    })
}

/// `Sun, 06 Nov 1994 08:49:37 GMT`, the one form of HTTP dates that is still sent (RFC 9110, 5.6.7).
fn http_date(text: &str) -> Option<Wall> {
    const MONTHS: &str = "JanFebMarAprMayJunJulAugSepOctNovDec";
    let (_, text) = text.split_once(", ")?;
    let mut parts = text.split_ascii_whitespace();
    let (day, month, year, time, zone) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    if zone != "GMT" || month.len() != 3 {
        return None;
    }
    let month = i64::try_from(MONTHS.find(month)? / 3).ok()? + 1;
    date(year.parse().ok()?, month, day.parse().ok()?, time)
}

/// `2026-02-25T20:02:32Z`, with an optional fraction (dropped) or offset.
fn rfc3339(text: &str) -> Option<Wall> {
    let (day, time) = text.split_once(['T', 't', ' '])?;
    let mut day = day.splitn(3, '-');
    let (year, month, day) = (day.next()?.parse().ok()?, day.next()?.parse().ok()?, day.next()?.parse().ok()?);
    let clock = time.get(..8)?;
    let zone = time.get(8..)?.trim_start_matches(|c: char| c == '.' || c.is_ascii_digit());
    let offset_min = match zone {
        "Z" | "z" => 0,
        _ => {
            let sign = if zone.starts_with('-') { -1 } else { 1 };
            let (hours, minutes) = zone.get(1..)?.split_once(':')?;
            sign * (hours.parse::<i64>().ok()?.clamp(0, 24) * 60 + minutes.parse::<i64>().ok()?.clamp(0, 59))
        }
    };
    let at = date(year, month, day, clock)?;
    Some(Wall(at.0 - offset_min * 60_000))
}

/// Days from the civil calendar (Howard Hinnant's algorithm), then the clock.
fn date(year: i64, month: i64, day: i64, clock: &str) -> Option<Wall> {
    let mut parts = clock.splitn(3, ':').map(|part| part.parse::<i64>().ok());
    let (hour, minute, second) = (parts.next()??, parts.next()??, parts.next()??);
    let sane = (1970..10_000).contains(&year)
        && (1..=12).contains(&month)
        && (1..=31).contains(&day)
        && (0..24).contains(&hour)
        && (0..60).contains(&minute)
        && (0..=60).contains(&second);
    if !sane {
        return None;
    }
    let year = if month <= 2 { year - 1 } else { year };
    let era = year / 400;
    let year_of_era = year - era * 400;
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let days = era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468;
    Some(Wall((days * 86_400 + hour * 3600 + minute * 60 + second) * 1000))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_of_a_duration_is_read() {
        let ms = Duration::from_millis;
        for (text, wait) in [
            ("20ms", ms(20)),
            ("1s", ms(1000)),
            ("1.146s", ms(1146)),
            ("6m0s", ms(360_000)),
            ("1m30.5s", ms(90_500)),
            ("59m59s", ms(3_599_000)),
            ("12 seconds", ms(12_000)),
            ("2 minutes", ms(120_000)),
        ] {
            assert_eq!(duration(text), Some(wait), "{text}");
        }
        for text in ["", "s", "soon", "12", "1x", "..s", "-5s"] {
            assert_eq!(duration(text), None, "{text}");
        }
    }

    #[test]
    fn a_wait_in_prose_is_found_and_other_numbers_are_not() {
        for (text, wait) in [
            ("rate limit reached: limit 50000, used 47949. please try again in 1.146s. visit", Some(1146)),
            ("please retry in 48.939935699s.", Some(48_939)),
            ("please retry after 12 seconds. please go here", Some(12_000)),
            ("please try again in 7m12s.", Some(432_000)),
            ("too many tokens, please wait before trying again.", None),
            ("you have 3 seconds", None),
        ] {
            assert_eq!(in_prose(text).map(|wait| wait.as_millis()), wait, "{text}");
        }
    }

    #[test]
    fn dates_become_waits_and_past_dates_none_at_all() {
        let now = rfc3339("2026-02-25T20:02:02Z").unwrap();
        assert_eq!(now, Wall(1_772_049_722_000));
        assert_eq!(rfc3339("2026-02-25T22:02:02.123+02:00"), Some(now));
        assert_eq!(http_date("Wed, 25 Feb 2026 20:02:02 GMT"), Some(now));
        assert_eq!(reset_in("2026-02-25T20:02:32Z", now), Some(Duration::from_secs(30)));
        assert_eq!(reset_in("1772049752", now), Some(Duration::from_secs(30)));
        assert_eq!(reset_in("1772049752000", now), Some(Duration::from_secs(30)));
        assert_eq!(reset_in("11.38", now), Some(Duration::from_millis(11_380)));
        assert_eq!(reset_in("2020-02-25T20:02:32Z", now), Some(Duration::ZERO));
        assert_eq!(http_date("Wed, 99 Feb 2026 20:02:02 GMT"), None);
        assert_eq!(rfc3339("2026-02-25T20:02:02"), None);
    }
}
