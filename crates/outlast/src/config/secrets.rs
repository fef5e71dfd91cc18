//! `${ENV}` in settings, and the forms a secret may take.

use super::{
    Env, KeyHash,
    read::{At, Log},
};

/// A text after its variables were filled in.
pub(super) struct Expanded {
    pub(super) text: String,
    /// Whether any of it came from the environment.
    pub(super) from_env: bool,
}

/// Fills in every `${NAME}`. `None`: the log has the reason. No error ever shows a value.
pub(super) fn expand(setting: &At<String>, env: Env<'_>, log: &mut Log) -> Option<Expanded> {
    let (mut text, mut rest, mut from_env) = (String::new(), setting.value.as_str(), false);
    let mut complete = true;
    while let Some(start) = rest.find("${") {
        text.push_str(&rest[..start]);
        let Some(end) = rest[start..].find('}') else {
            log.error(&setting.place, "`${` is never closed", "Write ${NAME}");
            return None;
        };
        let name = &rest[start + 2..start + end];
        rest = &rest[start + end + 1..];
        from_env = true;
        let well_formed = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        if !well_formed {
            log.error(
                &setting.place,
                format_args!("`${{{name}}}` does not name an environment variable"),
                "Use letters, digits and _",
            );
            return None;
        }
        match env(name).filter(|value| !value.trim().is_empty()) {
            Some(value) => text.push_str(value.trim()),
            None => {
                let remedy = "Set it where Outlast starts, or remove the setting";
                log.error(&setting.place, format_args!("the environment variable {name} is not set"), remedy);
                complete = false;
            }
        }
    }
    text.push_str(rest);
    complete.then_some(Expanded { text, from_env })
}

/// A key that is only ever compared: `${ENV}` or `blake3:` and its hash. A key in plain text is refused.
pub(super) fn key_hash(setting: &At<String>, env: Env<'_>, log: &mut Log) -> Option<KeyHash> {
    if let Some(hex) = setting.value.strip_prefix("blake3:") {
        let hash = KeyHash::from_hex(hex);
        if hash.is_none() {
            log.error(
                &setting.place,
                "`blake3:` is not followed by 64 hexadecimal digits",
                "Make the hash with `printf %s KEY | b3sum`",
            );
        }
        return hash;
    }
    let key = expand(setting, env, log)?;
    if !key.from_env {
        log.error(
            &setting.place,
            "a key does not belong in the file",
            "Write ${NAME} and set that variable, or `blake3:` and the key's hash",
        );
        return None;
    }
    if key.text.len() < 16 {
        log.warn(&setting.place, "the key is shorter than 16 characters and may be guessed");
    }
    Some(KeyHash::of(&key.text))
}
