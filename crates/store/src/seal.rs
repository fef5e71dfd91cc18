//! Sealing of payloads: AES-256-GCM under a data key, or plaintext where the config says so in so many words.
//!
//! A sealed payload is `1 | key id (4) | nonce (12) | ciphertext | tag (16)`, a plain one `0 | payload`. What a payload
//! belongs to (its table, tenant, row and column) is authenticated along, so that one row's payload cannot be passed
//! off as another's.
//!
//! The nonces are random and drawn inside the cipher, which is the one use of entropy below the clock: nothing is ever
//! decided by them. At 2^32 payloads under one key the chance of a repeated nonce is 2^-32 (NIST SP 800-38D, section
//! 8.3); rotate the key before.

use crate::{Payload, StoreError};
use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use std::{fmt, sync::Arc};

const PLAIN: u8 = 0;
const AES_GCM: u8 = 1;
const KEY_ID_LEN: usize = 4;

/// A key that payloads are sealed with. It cannot be printed.
#[derive(Clone)]
pub struct DataKey {
    id: [u8; KEY_ID_LEN],
    key: Arc<RandomizedNonceKey>,
    /// What contents are hashed with, so that a hash tells nothing to whoever lacks the key.
    addresses: [u8; 32],
}

impl DataKey {
    /// A key of 32 bytes.
    ///
    /// # Panics
    /// Never: AES-256 takes every key of 32 bytes.
    pub fn new(bytes: &[u8; 32]) -> Self {
        let hash = blake3::derive_key("outlast 2026-11-21 id of a store's data key", bytes);
        let mut id = [0; KEY_ID_LEN];
        id.copy_from_slice(&hash[..KEY_ID_LEN]);
        let key = RandomizedNonceKey::new(&AES_256_GCM, bytes).expect("a key of 32 bytes");
        let addresses = blake3::derive_key("outlast 2026-11-21 addresses of a store's blobs", bytes);
        DataKey { id, key: Arc::new(key), addresses }
    }

    /// What sealed payloads and messages call it: eight hexadecimal digits of its hash.
    pub fn id(&self) -> String {
        hex(&self.id)
    }
}

impl fmt::Debug for DataKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DataKey({})", self.id())
    }
}

/// What happens to payloads before they are written.
#[derive(Clone, Debug)]
pub enum Sealing {
    /// They are sealed: the first key seals, each of them opens.
    Keys(Vec<DataKey>),
    /// They stay as they are.
    Plaintext,
}

/// What a payload belongs to.
#[derive(Clone, Copy, Debug)]
pub struct Owner<'a> {
    /// The kind of row.
    pub table: &'static str,
    /// Whose it is.
    pub tenant: &'a str,
    /// Which row.
    pub id: &'a str,
    /// Which of the row's payloads.
    pub column: &'static str,
}

impl Owner<'_> {
    /// Lengths in front, so that no two owners read the same.
    fn bytes(&self) -> Vec<u8> {
        let parts = [self.table, self.tenant, self.id, self.column];
        let mut bytes = Vec::with_capacity(parts.iter().map(|part| part.len() + 8).sum());
        for part in parts {
            bytes.extend_from_slice(&(part.len() as u64).to_le_bytes());
            bytes.extend_from_slice(part.as_bytes());
        }
        bytes
    }
}

/// Seals and opens payloads.
#[derive(Clone, Debug)]
pub struct Sealer {
    /// None: plaintext.
    keys: Vec<DataKey>,
}

impl Sealer {
    /// With the keys of `sealing`; none of them is plaintext.
    pub fn new(sealing: Sealing) -> Self {
        match sealing {
            Sealing::Keys(keys) => Sealer { keys },
            Sealing::Plaintext => Sealer { keys: Vec::new() },
        }
    }

    /// True if payloads are sealed; false if they stay as they are.
    pub fn seals(&self) -> bool {
        !self.keys.is_empty()
    }

    /// The key that seals; none for plaintext.
    pub(crate) fn key_id(&self) -> Option<String> {
        self.keys.first().map(DataKey::id)
    }

    /// Seals with the first key.
    pub fn seal(&self, owner: Owner<'_>, payload: &[u8]) -> Vec<u8> {
        let Some(DataKey { id, key, .. }) = self.keys.first() else {
            return [&[PLAIN], payload].concat();
        };
        let mut sealed = Vec::with_capacity(payload.len() + AES_256_GCM.tag_len());
        sealed.extend_from_slice(payload);
        let nonce = key
            .seal_in_place_append_tag(Aad::from(owner.bytes()), &mut sealed)
            .expect("AES-GCM seals anything shorter than 64 GiB");
        [&[AES_GCM], id.as_slice(), nonce.as_ref(), &sealed].concat()
    }

    /// A hash of content, keyed by the first key: the same for the same content as long as that key is the first.
    pub(crate) fn address(&self, content: &[u8]) -> [u8; 32] {
        match self.keys.first() {
            Some(key) => *blake3::keyed_hash(&key.addresses, content).as_bytes(),
            None => *blake3::hash(content).as_bytes(),
        }
    }

    /// Opens what any of the keys sealed. `place` names the file in errors.
    ///
    /// # Errors
    /// [`StoreError::KeyMissing`] if the key that sealed it was not given; [`StoreError::Corrupt`] if it is not what
    /// was sealed for this owner, or is plain where payloads are sealed.
    pub fn open(&self, place: &Arc<str>, owner: Owner<'_>, mut stored: Vec<u8>) -> Result<Payload, StoreError> {
        let corrupt = |why: &str| {
            let what = format!("a {} of {}, {why}", owner.column, owner.table);
            StoreError::Corrupt { place: place.clone(), why: what.into() }
        };
        match stored.first() {
            Some(&PLAIN) if self.keys.is_empty() => {
                stored.remove(0);
                Ok(Payload::from(stored))
            }
            Some(&PLAIN) => Err(corrupt("is not sealed")),
            Some(&AES_GCM) if stored.len() >= 1 + KEY_ID_LEN + NONCE_LEN => {
                let (head, body) = stored.split_at_mut(1 + KEY_ID_LEN + NONCE_LEN);
                let (id, nonce) = head[1..].split_at(KEY_ID_LEN);
                let Some(DataKey { key, .. }) = self.keys.iter().find(|key| key.id == id) else {
                    return Err(StoreError::KeyMissing { place: place.clone(), key: hex(id).into() });
                };
                let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| corrupt("has no nonce"))?;
                let opened = key.open_in_place(nonce, Aad::from(owner.bytes()), body);
                opened.map(|payload| Payload::from(payload.to_vec())).map_err(|_| corrupt("is not what was sealed"))
            }
            Some(_) | None => Err(corrupt("is in no known form")),
        }
    }
}

/// The key that sealed a stored payload; none if it is plain.
pub(crate) fn key_id(stored: &[u8]) -> Option<String> {
    match stored.split_first() {
        Some((&AES_GCM, rest)) => rest.get(..KEY_ID_LEN).map(hex),
        Some(_) | None => None,
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWNER: Owner<'static> = Owner { table: "queue", tenant: "acme", id: "q_1", column: "payload" };

    fn place() -> Arc<str> {
        "store.db".into()
    }

    fn keys(numbers: &[u8]) -> Sealer {
        Sealer::new(Sealing::Keys(numbers.iter().map(|number| DataKey::new(&[*number; 32])).collect()))
    }

    #[test]
    fn what_was_sealed_opens_and_shows_nothing() {
        let sealed = keys(&[1]).seal(OWNER, b"a secret question");
        assert!(!sealed.windows(6).any(|window| window == b"secret"));
        assert_ne!(sealed, keys(&[1]).seal(OWNER, b"a secret question"), "each sealing has its own nonce");
        assert_eq!(keys(&[1]).open(&place(), OWNER, sealed).unwrap().as_bytes(), b"a secret question");
    }

    #[test]
    fn after_a_rotation_the_old_key_opens_and_the_new_one_seals() {
        let old = keys(&[1]).seal(OWNER, b"old");
        let new = keys(&[2, 1]).seal(OWNER, b"new");
        assert_eq!(keys(&[2, 1]).open(&place(), OWNER, old.clone()).unwrap().as_bytes(), b"old");
        assert_eq!(keys(&[2]).open(&place(), OWNER, new).unwrap().as_bytes(), b"new");
        let error = keys(&[2]).open(&place(), OWNER, old).unwrap_err();
        assert_eq!(error, StoreError::KeyMissing { place: place(), key: DataKey::new(&[1; 32]).id().into() });
        assert!(error.to_string().contains(&DataKey::new(&[1; 32]).id()), "{error}");
    }

    #[test]
    fn a_payload_does_not_open_as_another_rows() {
        let sealed = keys(&[1]).seal(OWNER, b"mine");
        for thief in [
            Owner { tenant: "evil", ..OWNER },
            Owner { id: "q_2", ..OWNER },
            Owner { table: "cache", ..OWNER },
            Owner { column: "reply", ..OWNER },
            Owner { tenant: "acmeq", id: "_1", ..OWNER },
        ] {
            let error = keys(&[1]).open(&place(), thief, sealed.clone()).unwrap_err();
            assert_eq!(error.name(), "corrupt", "{thief:?}");
        }
    }

    #[test]
    fn a_changed_or_cut_or_plain_payload_is_damage() {
        let sealed = keys(&[1]).seal(OWNER, b"mine");
        for at in [0, 5, 20, sealed.len() - 1] {
            let mut changed = sealed.clone();
            changed[at] ^= 0x40;
            assert_eq!(keys(&[1]).open(&place(), OWNER, changed).unwrap_err().name(), "corrupt", "byte {at}");
        }
        for length in [0, 1, 10, 17, sealed.len() - 1] {
            let cut = sealed[..length].to_vec();
            assert_eq!(keys(&[1]).open(&place(), OWNER, cut).unwrap_err().name(), "corrupt", "{length} bytes");
        }
        let plain = Sealer::new(Sealing::Plaintext).seal(OWNER, b"planted");
        assert_eq!(keys(&[1]).open(&place(), OWNER, plain.clone()).unwrap_err().name(), "corrupt");
        let opened = Sealer::new(Sealing::Plaintext).open(&place(), OWNER, plain).unwrap();
        assert_eq!(opened.as_bytes(), b"planted");
    }

    #[test]
    fn a_key_is_never_printed() {
        let printed = format!("{:?}", Sealing::Keys(vec![DataKey::new(&[7; 32])]));
        assert!(!printed.contains("7, 7") && !printed.contains("0707"), "{printed}");
    }
}
