//! A key that cannot be printed by accident.

use std::{fmt, sync::Arc};

/// A credential. It has no `Display` and no `Serialize`; its `Debug` says only that there is one.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretKey(Arc<str>);

impl SecretKey {
    /// Wraps a credential.
    pub fn new(text: impl Into<Arc<str>>) -> Self {
        SecretKey(text.into())
    }

    /// The credential itself. Only what signs or sends it may call this; never a log, a metric or an error.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretKey(..)")
    }
}

/// The BLAKE3 hash of a caller's key. The key itself is not kept.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyHash(pub [u8; 32]);

impl KeyHash {
    /// Hashes a presented key. Compare it with [`KeyHash::same`].
    pub fn of(key: &str) -> Self {
        KeyHash(*blake3::hash(key.as_bytes()).as_bytes())
    }

    /// Whether both are of the same key, in a time that does not depend on where they differ.
    pub fn same(&self, other: &KeyHash) -> bool {
        aws_lc_rs::constant_time::verify_slices_are_equal(&self.0, &other.0).is_ok()
    }

    /// Reads 64 hexadecimal digits.
    pub fn from_hex(hex: &str) -> Option<Self> {
        blake3::Hash::from_hex(hex).ok().map(|hash| KeyHash(*hash.as_bytes()))
    }

    /// The first 12 hexadecimal digits: how logs and records name the caller.
    pub fn short(&self) -> Box<str> {
        blake3::Hash::from_bytes(self.0).to_hex()[..12].into()
    }
}

impl fmt::Debug for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyHash({})", self.short())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_output_never_shows_a_key() {
        let key = SecretKey::new("sk-very-secret");
        assert!(!format!("{key:?}").contains("secret"));
        assert!(!format!("{:?}", KeyHash::of("sk-very-secret")).contains("secret"));
    }
}
