//! Datagrams in a stream of bytes: each behind its length, a little-endian u16.

/// Bytes of the length.
pub const PREFIX: usize = 2;
/// Longest datagram, in bytes; no UDP over IPv4 carries more.
pub const LONGEST: usize = 65_507;

/// Puts datagrams together that come in parts.
#[derive(Default)]
pub struct Datagrams {
    part: Vec<u8>,
}

impl Datagrams {
    /// Calls `each` for every datagram that `bytes` completes.
    pub fn take(&mut self, bytes: &[u8], mut each: impl FnMut(&[u8])) {
        let mut rest = bytes;
        if !self.part.is_empty() {
            // As much as makes the length known, then as much as it says.
            let known = PREFIX.saturating_sub(self.part.len()).min(rest.len());
            self.part.extend_from_slice(&rest[..known]);
            rest = &rest[known..];
            let Some(length) = length_of(&self.part) else { return };
            let missing = (PREFIX + length - self.part.len()).min(rest.len());
            self.part.extend_from_slice(&rest[..missing]);
            rest = &rest[missing..];
            if self.part.len() < PREFIX + length {
                return;
            }
            each(&self.part[PREFIX..]);
            self.part = Vec::new();
        }
        while let Some(length) = length_of(rest) {
            let Some(datagram) = rest.get(PREFIX..PREFIX + length) else { break };
            each(datagram);
            rest = &rest[PREFIX + length..];
        }
        self.part.extend_from_slice(rest);
    }
}

fn length_of(bytes: &[u8]) -> Option<usize> {
    bytes.first_chunk::<PREFIX>().map(|prefix| usize::from(u16::from_le_bytes(*prefix)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn datagrams_are_the_same_however_they_are_cut() {
        let sent: Vec<Vec<u8>> =
            [0, 1, 2, 3, 300, LONGEST, 0, 7].iter().map(|&length| vec![length as u8; length]).collect();
        let bytes: Vec<u8> =
            sent.iter().flat_map(|one| [&(one.len() as u16).to_le_bytes()[..], one].concat()).collect();
        for piece in [1, 2, 3, 5, 299, 32_756, bytes.len()] {
            let (mut datagrams, mut got) = (Datagrams::default(), Vec::new());
            for part in bytes.chunks(piece) {
                datagrams.take(part, |datagram| got.push(datagram.to_vec()));
            }
            assert!(got == sent, "in pieces of {piece}");
            assert!(datagrams.part.is_empty());
        }
    }
}
