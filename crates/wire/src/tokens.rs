//! Token estimates from bytes. They need to be good enough to leave out a target whose window is clearly too small
//! and to reserve a budget; the bill is settled from what the provider reports.

/// What one image costs, about: OpenAI's high-detail images take 765 to 1,105 tokens, Anthropic's up to 1,600.
pub const IMAGE_TOKENS: u32 = 1200;

/// Sixtieths of a token per byte, by the byte's role in UTF-8. ASCII text takes four bytes per token; a CJK
/// character (three bytes) about one token; Cyrillic, Greek, Arabic and accented Latin (two bytes) about two
/// characters per token; an emoji (four bytes) about two tokens.
const fn weight(byte: u8) -> u64 {
    match byte {
        0..=0x7f => 15,
        // Continuation bytes weigh nothing; the leading byte carries the character.
        0x80..=0xbf => 0,
        0xc0..=0xdf => 30,
        0xe0..=0xef => 60,
        0xf0..=0xff => 120,
    }
}

/// Estimates the tokens of some text.
pub fn estimate(text: &[u8]) -> u32 {
    let mut sixtieths = 0u64;
    for chunk in text.chunks(64) {
        if chunk.is_ascii() {
            sixtieths += 15 * chunk.len() as u64;
        } else {
            sixtieths += chunk.iter().map(|&byte| weight(byte)).sum::<u64>();
        }
    }
    u32::try_from(sixtieths.div_ceil(60)).unwrap_or(u32::MAX)
}

/// By how many sixtieths of a token the six bytes of an escape (`\u0434`) weigh more than the character it stands for,
/// told by its first digit: half a token up to U+0FFF, one for what comes later and for each half of a surrogate pair.
/// Clients that send ASCII only would otherwise look three times as long.
pub(crate) const fn escape_saving(first_digit: u8) -> u32 {
    match first_digit {
        b'0' => 6 * 15 - 30,
        _ => 6 * 15 - 60,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scripts_weigh_differently() {
        assert_eq!(estimate(b""), 0);
        assert_eq!(estimate(b"twelve bytes"), 3);
        assert_eq!(estimate("四文字だ".as_bytes()), 4);
        assert_eq!(estimate("Привет".as_bytes()), 3);
        assert_eq!(estimate("🎈".as_bytes()), 2);
        assert_eq!(estimate(&[b'a'; 4000]), 1000);
    }
}
