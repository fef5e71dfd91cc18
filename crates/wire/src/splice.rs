//! Edits of a body's top level: everything that is not edited stays byte for byte.

use crate::inbound::Inbound;
use bytes::Bytes;
use std::ops::Range;

/// Collects the edits of one body. No field may be edited twice.
pub(crate) struct Splice<'a> {
    inbound: &'a Inbound,
    /// These bytes are replaced by those.
    edits: Vec<(Range<usize>, Bytes)>,
    /// Fields that go, by their place.
    removed: Vec<usize>,
}

impl<'a> Splice<'a> {
    pub(crate) fn new(inbound: &'a Inbound) -> Self {
        Splice { inbound, edits: Vec::with_capacity(2), removed: Vec::new() }
    }

    /// How many edits there are.
    pub(crate) fn len(&self) -> usize {
        self.edits.len() + self.removed.len()
    }

    /// Replaces a field's value, or adds the field at the end.
    pub(crate) fn set(&mut self, name: &str, value: Vec<u8>) {
        if let Some(field) = self.inbound.field(name) {
            self.edits.push((field.value.clone(), value.into()));
            return;
        }
        let mut added = Vec::with_capacity(name.len() + value.len() + 4);
        for piece in [&b",\""[..], name.as_bytes(), b"\":", &value] {
            added.extend_from_slice(piece);
        }
        self.add(added.into());
    }

    /// Adds a field at the end, with a comma before it: the object is not empty, it has a model.
    pub(crate) fn add(&mut self, field: Bytes) {
        if let Some(end) = self.inbound.body().iter().rposition(|&byte| byte == b'}') {
            self.edits.push((end..end, field));
        }
    }

    /// Takes a field out, if it is there.
    pub(crate) fn remove(&mut self, name: &str) {
        let body = self.inbound.body();
        let fields = &self.inbound.scan().fields;
        self.removed.extend(fields.iter().position(|field| body[field.key.clone()] == *name.as_bytes()));
    }

    /// Puts bytes before the closing bracket of a list.
    pub(crate) fn append_to_list(&mut self, name: &str, items: Vec<u8>) {
        if let Some(field) = self.inbound.field(name) {
            let end = field.value.end - 1;
            self.edits.push((end..end, items.into()));
        }
    }

    /// The body, in order.
    pub(crate) fn finish(mut self) -> Vec<Bytes> {
        self.cut_removed();
        // Stable, so that what is added at the end stays in order.
        self.edits.sort_by_key(|(span, _)| span.start);
        let body = self.inbound.body();
        let mut pieces = Vec::with_capacity(2 * self.edits.len() + 1);
        let mut from = 0;
        for (span, new) in self.edits {
            pieces.push(body.slice(from..span.start));
            if !new.is_empty() {
                pieces.push(new);
            }
            from = span.end;
        }
        pieces.push(body.slice(from..));
        pieces
    }

    /// A field goes with the comma before it; those at the very beginning, which have none, with the one after.
    fn cut_removed(&mut self) {
        self.removed.sort_unstable();
        let fields = &self.inbound.scan().fields;
        let mut all_before = true;
        for (nth, &at) in self.removed.iter().enumerate() {
            all_before &= nth == at;
            let span = match fields.get(at + 1) {
                Some(next) if all_before => fields[at].key.start - 1..next.key.start - 1,
                Some(_) | None if at > 0 => fields[at - 1].value.end..fields[at].value.end,
                Some(_) | None => continue,
            };
            self.edits.push((span, Bytes::new()));
        }
    }
}
