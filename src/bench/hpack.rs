//! Header blocks of HTTP/2 (RFC 7541), as far as a load generator needs them.
//!
//! Requests name the same few fields again and again: they go through the dynamic table, as other
//! clients do it. Of answers only the status is wanted, which comes first in a block; the rest isn't
//! decoded, so a status in the dynamic table is unknown. The one that loads wait for, 200, is static.

/// Index of the first entry of the dynamic table.
const DYNAMIC: usize = 62;

/// Writes the header blocks of one connection's requests.
#[derive(Default)]
pub(super) struct Encoder {
    /// What was inserted into the peer's table, oldest first.
    table: Vec<(String, String)>,
}

impl Encoder {
    /// Writes a field by the index of a static entry with both name and value.
    pub(super) fn indexed(out: &mut Vec<u8>, index: u8) {
        out.push(0x80 | index);
    }

    /// Writes a field that comes again: the first time in full, later as one byte.
    pub(super) fn repeated(&mut self, out: &mut Vec<u8>, name: &str, value: &str) {
        let known = self.table.iter().position(|entry| entry.0 == name && entry.1 == value);
        if let Some(place) = known {
            let index = DYNAMIC + self.table.len() - 1 - place;
            out.push(0x80 | u8::try_from(index).expect("the table holds a handful of fields"));
            return;
        }
        out.push(0x40);
        text(out, name);
        text(out, value);
        self.table.push((name.to_owned(), value.to_owned()));
    }

    /// Writes the path, which is another one each time.
    pub(super) fn path(out: &mut Vec<u8>, value: &str) {
        out.push(0x04);
        text(out, value);
    }
}

fn text(out: &mut Vec<u8>, text: &str) {
    integer(out, text.len());
    out.extend_from_slice(text.as_bytes());
}

/// Writes an integer with a prefix of seven bits (RFC 7541 §5.1).
fn integer(out: &mut Vec<u8>, value: usize) {
    if value < 127 {
        out.push(value as u8);
        return;
    }
    out.push(127);
    let mut rest = value - 127;
    while rest >= 128 {
        out.push((rest % 128) as u8 | 0x80);
        rest /= 128;
    }
    out.push(rest as u8);
}

/// Reads the status from the beginning of an answer's header block; `None` where it isn't in clear there.
pub(super) fn status(mut block: &[u8]) -> Option<u16> {
    const STATIC: [u16; 7] = [200, 204, 206, 304, 400, 404, 500];
    loop {
        let (&first, rest) = block.split_first()?;
        block = rest;
        return match first {
            // The size of the dynamic table changes: the fields come after it.
            0x20..=0x3f => continue,
            0x88..=0x8e => Some(STATIC[usize::from(first - 0x88)]),
            // A literal whose name is that of the first static status.
            0x08 | 0x18 | 0x48 => digits(block),
            _ => None,
        };
    }
}

/// Reads three digits, as they are or in Huffman's code.
fn digits(block: &[u8]) -> Option<u16> {
    let (&length, rest) = block.split_first()?;
    let bytes = rest.get(..usize::from(length & 0x7f))?;
    if length & 0x80 == 0 {
        return std::str::from_utf8(bytes).ok()?.parse().ok();
    }
    let bits = bytes.iter().fold(0u64, |bits, byte| (bits << 8) | u64::from(*byte));
    let mut left = bytes.len().min(8) * 8;
    let mut number = 0;
    for _ in 0..3 {
        let take = |count: usize| (bits >> left.checked_sub(count)?).checked_rem(1 << count);
        // 0 to 2 have five bits, 3 to 9 have six, from 0b011001 on.
        let (digit, length) = match take(5)? {
            short @ 0..=2 => (short, 5),
            _ => (take(6)?.checked_sub(0b01_1001)? + 3, 6),
        };
        if digit > 9 {
            return None;
        }
        left -= length;
        number = number * 10 + digit;
    }
    u16::try_from(number).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_are_read_in_every_form_that_servers_write() {
        assert_eq!(status(&[0x88]), Some(200));
        assert_eq!(status(&[0x8d, 0x40]), Some(404));
        assert_eq!(status(&[0x3f, 0x20]), None, "a block that ends early has none");
        assert_eq!(status(&[0x20, 0x88]), Some(200), "after a table size");
        assert_eq!(status(b"\x48\x03201"), Some(201));
        assert_eq!(status(&[0x48, 0x82, 0x10, 0x03]), Some(201), "Huffman");
        // RFC 7541 C.6.1 and C.6.2.
        assert_eq!(status(&[0x48, 0x82, 0x64, 0x02]), Some(302));
        assert_eq!(status(&[0x48, 0x83, 0x64, 0x0e, 0xff]), Some(307));
        assert_eq!(status(&[0xbe]), None, "a dynamic entry isn't known");
        assert_eq!(status(&[]), None);
    }

    #[test]
    fn repeated_fields_become_one_byte() {
        let mut encoder = Encoder::default();
        let mut out = Vec::new();
        encoder.repeated(&mut out, "a", "1");
        encoder.repeated(&mut out, "b", "2");
        out.clear();
        encoder.repeated(&mut out, "a", "1");
        encoder.repeated(&mut out, "b", "2");
        assert_eq!(out, [0x80 | 63, 0x80 | 62]);
    }

    #[test]
    fn long_texts_have_a_length_of_several_bytes() {
        let mut out = Vec::new();
        integer(&mut out, 1337 + 96);
        // 1433 = 127 + 1306 = 127 + (26 + 128 × 10).
        assert_eq!(out, [127, 26 | 0x80, 10]);
    }
}
