//! `[store]`: where what has to outlive a request is kept, and with which keys it is sealed.

use std::{fmt, path::PathBuf};
use zeroize::Zeroizing;

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
