//! `[store]`: where what has to outlive a request is kept, and with which keys it is sealed.

use super::{
    contracts::Around,
    promises::StoreFile,
    read::{At, Log, Place},
    secrets::expand,
};
use base64::{
    Engine,
    alphabet::STANDARD,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use std::{fmt, path::PathBuf};
use zeroize::Zeroizing;

/// With or without the padding: both are copied about.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// How a key is made, for remedies.
const MAKE_KEY: &str = "head -c 32 /dev/urandom | base64";

/// The most keys of one store: each is tried on what another one sealed.
const KEYS_MAX: usize = 8;

/// The durable store. Payloads in it are sealed, or in plain text because the config says so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreConfig {
    /// The SQLite file.
    pub file: PathBuf,
    /// What happens to payloads before they are written.
    pub sealing: Sealing,
}

/// What happens to payloads before they are written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sealing {
    /// They are encrypted: the first key seals, each of them opens. Never empty.
    Keys(Vec<DataKey>),
    /// They stay as they are: `plaintext_payloads = true`.
    Plaintext,
}

/// A key that payloads are encrypted with. It cannot be printed, and its memory is wiped.
#[derive(Clone, PartialEq, Eq)]
pub struct DataKey(Zeroizing<[u8; 32]>);

impl DataKey {
    /// Wraps a key.
    pub fn new(bytes: Zeroizing<[u8; 32]>) -> Self {
        DataKey(bytes)
    }

    /// The key itself. Only what seals and opens payloads may call this; never a log, a metric or an error.
    pub fn expose(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for DataKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DataKey(..)")
    }
}

/// Judges the section.
pub(super) fn judge(file: Option<&At<StoreFile>>, around: Around<'_>, log: &mut Log) -> Option<StoreConfig> {
    let At { value: file, place } = file?;
    if file.file.is_none() && !log.has_error_under(&format!("{}.file", place.path)) {
        log.error(place, "it has no `file`", "Add file = \"outlast-store.db\"");
    }
    let sealing = sealing(file, place, around, log);
    Some(StoreConfig { file: around.base.join(&file.file.as_ref()?.value), sealing: sealing? })
}

fn sealing(file: &StoreFile, place: &Place, around: Around<'_>, log: &mut Log) -> Option<Sealing> {
    if let (Some(_), Some(many)) = (&file.data_key, &file.data_keys) {
        log.error(&many.place, "`data_key` is there as well", "Keep one of the two; `data_keys` takes both keys");
    }
    let plaintext = file.plaintext_payloads.as_ref().filter(|plaintext| plaintext.value);
    let many = file.data_keys.iter().flat_map(|keys| &keys.value);
    let settings: Vec<&At<String>> = file.data_key.iter().chain(many).collect();
    let before = log.has_error_under(&place.path);
    match (plaintext, settings.first()) {
        (Some(plaintext), Some(_)) => {
            let what = "payloads are either encrypted or in plain text, and there is a data key";
            log.error(&plaintext.place, what, "Remove one of the two");
            None
        }
        (Some(_), None) => Some(Sealing::Plaintext),
        (None, None) => {
            if !before {
                let what = "the store holds prompts and answers, and it is not said how they are protected";
                let remedy = format!(
                    "Make a key with `{MAKE_KEY}`, set it as an environment variable and add \
                     data_key = \"${{OUTLAST_DATA_KEY}}\"; or write plaintext_payloads = true"
                );
                log.error(place, what, remedy);
            }
            None
        }
        (None, Some(_)) => keys(&settings, around, log).map(Sealing::Keys),
    }
}

fn keys(settings: &[&At<String>], around: Around<'_>, log: &mut Log) -> Option<Vec<DataKey>> {
    if let Some(beyond) = settings.get(KEYS_MAX) {
        log.error(
            &beyond.place,
            format_args!("a store has at most {KEYS_MAX} keys"),
            "Remove those that nothing needs",
        );
    }
    let mut keys: Vec<DataKey> = Vec::new();
    let mut complete = true;
    for setting in settings {
        match key(setting, around, log) {
            Some(key) if keys.contains(&key) => {
                log.error(&setting.place, "this key is there twice", "Remove one of the two");
            }
            Some(key) => keys.push(key),
            None => complete = false,
        }
    }
    complete.then_some(keys)
}

fn key(setting: &At<String>, around: Around<'_>, log: &mut Log) -> Option<DataKey> {
    let expanded = expand(setting, around.env, log)?;
    let text = Zeroizing::new(expanded.text);
    if !expanded.from_env {
        log.error(&setting.place, "a key does not belong in the file", "Write ${NAME} and set that variable");
        return None;
    }
    let bytes = match BASE64.decode(text.as_bytes()) {
        Ok(bytes) => Zeroizing::new(bytes),
        Err(_) => {
            log.error(&setting.place, "the key is not base64", format_args!("Make one with `{MAKE_KEY}`"));
            return None;
        }
    };
    let Ok(key) = <[u8; 32]>::try_from(bytes.as_slice()) else {
        let what = format!("the key has {} bytes and needs 32", bytes.len());
        log.error(&setting.place, what, format_args!("Make one with `{MAKE_KEY}`"));
        return None;
    };
    Some(DataKey::new(Zeroizing::new(key)))
}
