//! Mutate: makes hostile inputs out of good ones, with some knowledge of protobuf, JSON and plain words.
//!
//! Promises: the same seed over the same corpus gives the same inputs, in the same order; none is above [`MOST`] bytes.
//! Never: looks at what the code under test did with an input.

use serde_json::Value;

use crate::chance::Chance;

/// Longest input: above the largest message that the server takes.
pub const MOST: usize = 6 * 1024 * 1024;

/// Longest text that is taken apart into words, each of which costs some memory of its own; no door of words takes more.
const MOST_WORDS: usize = 256 * 1024;

/// What an input is made of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Form {
    Protobuf,
    Json,
    /// TOML, filters, tokens: words between signs.
    Words,
    Bytes,
}

/// Numbers at which things break.
const EDGES: [u64; 14] = [
    0,
    1,
    0x7f,
    0x80,
    0xff,
    0x100,
    0xffff,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_ffff,
    0x1_0000_0000,
    0x7fff_ffff_ffff_ffff,
    0x8000_0000_0000_0000,
    u64::MAX,
];

/// Texts at which things break.
const TEXTS: [&str; 18] = [
    "",
    "\0",
    " ",
    "'",
    "\"",
    "\\",
    "\u{feff}",
    "\u{202e}",
    "İ",
    "ſ",
    "😀",
    "-0",
    "1e400",
    "99999999999999999999",
    "9999-99-99T99:99:99",
    "_seq",
    "DELETED",
    "';DROP TABLE x;--",
];

/// Makes inputs.
#[derive(Debug)]
pub struct Mutator {
    chance: Chance,
    form: Form,
    seeds: Vec<Vec<u8>>,
    words: Vec<Vec<u8>>,
}

impl Mutator {
    /// Over good inputs; none is as good as one empty input.
    #[must_use]
    pub fn new(form: Form, seeds: Vec<Vec<u8>>, seed: u64) -> Self {
        let seeds = if seeds.is_empty() { vec![Vec::new()] } else { seeds };
        let mut words: Vec<Vec<u8>> = seeds.iter().flat_map(|seed| split(seed)).collect();
        words.sort();
        words.dedup();
        Self { chance: Chance::new(seed), form, seeds, words }
    }

    /// The next input.
    pub fn make(&mut self) -> Vec<u8> {
        let mut input = self.seed();
        for _ in 0..=self.chance.below(5) {
            input = if self.chance.percent(65) { self.by_form(input) } else { self.bytes(input) };
            let of_words = matches!(self.form, Form::Words | Form::Json);
            input.truncate(if of_words { MOST_WORDS } else { MOST });
        }
        input
    }

    fn seed(&mut self) -> Vec<u8> {
        self.chance.pick(&self.seeds).cloned().unwrap_or_default()
    }

    fn by_form(&mut self, input: Vec<u8>) -> Vec<u8> {
        match self.form {
            Form::Protobuf => self.protobuf(&input, 0),
            Form::Json => self.json(&input),
            Form::Words => self.spliced_words(&input),
            Form::Bytes => self.bytes(input),
        }
    }

    fn at(&mut self, length: usize) -> usize {
        usize::try_from(self.chance.below(length as u64)).unwrap_or_default()
    }

    fn edge(&mut self) -> u64 {
        let edge = self.chance.pick(&EDGES).copied().unwrap_or_default();
        match self.chance.below(4) {
            0 => edge.wrapping_add(1),
            1 => edge.wrapping_sub(1),
            2 => self.chance.draw(),
            _ => edge,
        }
    }

    fn text(&mut self) -> Vec<u8> {
        match self.chance.below(5) {
            0 => vec![0xff, 0xfe, b'x'],
            1 => {
                let long = [127, 128, 129, 2_047, 2_049, 70_000];
                let length = self.chance.pick(&long).copied().unwrap_or_default();
                vec![b'n'; length]
            }
            _ => self.chance.pick(&TEXTS).map(|text| text.as_bytes().to_vec()).unwrap_or_default(),
        }
    }

    /// One edit of bytes.
    fn bytes(&mut self, mut input: Vec<u8>) -> Vec<u8> {
        let (from, to) = {
            let (a, b) = (self.at(input.len() + 1), self.at(input.len() + 1));
            (a.min(b), a.max(b))
        };
        match self.chance.below(8) {
            0 => {
                let bit = 1 << self.chance.below(8);
                if let Some(byte) = input.get_mut(from) {
                    *byte ^= bit;
                }
            }
            1 => input.truncate(to),
            2 => drop(input.drain(from..to)),
            3 => {
                let part = input.get(from..to).unwrap_or_default().to_vec();
                drop(input.splice(to..to, part));
            }
            4 => {
                let other = self.seed();
                let cut = self.at(other.len() + 1);
                input.truncate(from);
                input.extend_from_slice(other.get(cut..).unwrap_or_default());
            }
            5 => {
                let edge = self.edge().to_le_bytes();
                let width = 1 << self.chance.below(4);
                for (byte, new) in input.iter_mut().skip(from).zip(edge.iter().take(width)) {
                    *byte = *new;
                }
            }
            6 => {
                let text = self.text();
                drop(input.splice(from..from, text));
            }
            _ => {
                let random = self.chance.draw().to_le_bytes();
                let count = self.at(random.len());
                drop(input.splice(from..from, random.into_iter().take(count)));
            }
        }
        input
    }

    /// One edit of a field of a message, or of a message within it.
    fn protobuf(&mut self, input: &[u8], depth: usize) -> Vec<u8> {
        let mut fields = fields(input);
        if fields.is_empty() {
            return self.bytes(input.to_vec());
        }
        let at = self.at(fields.len());
        let Some(field) = fields.get(at).cloned() else { return input.to_vec() };
        if field.wire == 2 && depth < 6 && self.chance.percent(55) {
            let inner = self.protobuf(&field.payload, depth + 1);
            if let Some(slot) = fields.get_mut(at) {
                slot.payload = inner;
            }
            return joined(&fields);
        }
        match self.chance.below(10) {
            0 => drop(fields.remove(at)),
            1 => fields.insert(at, field),
            2 => {
                let other = self.at(fields.len());
                fields.swap(at, other);
            }
            3 => return self.repeated(&fields, &field),
            4 => return nested(&fields, at, 1 + self.at(200)),
            _ => {
                let edge = self.edge();
                let text = self.text();
                let lie = self.chance.below(3);
                let wire = self.chance.below(8);
                let number = self.chance.below(12);
                if let Some(slot) = fields.get_mut(at) {
                    match (lie, slot.wire) {
                        (0, _) => slot.length = Some(edge),
                        (1, _) if edge.is_multiple_of(2) => slot.number = number,
                        (1, _) => slot.wire = wire,
                        (_, 0) => slot.payload = varint(edge),
                        _ => slot.payload = text,
                    }
                }
            }
        }
        joined(&fields)
    }

    /// One field very often.
    fn repeated(&mut self, fields: &[Field], field: &Field) -> Vec<u8> {
        let one = joined(std::slice::from_ref(field));
        let times = [2, 33, 201, 2_000, 10_001, 70_000];
        let times = self.chance.pick(&times).copied().unwrap_or_default();
        let times = times.min(MOST / 2 / one.len().max(1));
        let mut out = joined(fields);
        out.extend(one.repeat(times));
        out
    }

    fn json(&mut self, input: &[u8]) -> Vec<u8> {
        let Ok(mut tree) = serde_json::from_slice::<Value>(input) else {
            return self.spliced_words(input);
        };
        let mut steps = self.chance.below(6);
        self.edit(&mut tree, &mut steps);
        serde_json::to_vec(&tree).unwrap_or_default()
    }

    /// Walks down some steps and changes what is there.
    fn edit(&mut self, node: &mut Value, steps: &mut u64) {
        if *steps > 0 {
            *steps -= 1;
            match node {
                Value::Array(items) if !items.is_empty() => {
                    let at = self.at(items.len());
                    if let Some(item) = items.get_mut(at) {
                        return self.edit(item, steps);
                    }
                }
                Value::Object(map) if !map.is_empty() => {
                    let at = self.at(map.len());
                    if let Some((_, item)) = map.iter_mut().nth(at) {
                        return self.edit(item, steps);
                    }
                }
                _ => {}
            }
        }
        self.replace(node);
    }

    fn replace(&mut self, node: &mut Value) {
        let text = String::from_utf8_lossy(&self.text()).into_owned();
        *node = match self.chance.below(9) {
            0 => Value::Null,
            1 => Value::from(self.edge()),
            2 => Value::from(self.edge().cast_signed()),
            3 => Value::from(f64::from_bits(self.chance.draw())),
            4 => Value::from(text),
            5 => (0..self.chance.below(300)).fold(Value::Null, |inner, _| Value::from(vec![inner])),
            6 => match node.take() {
                Value::Array(mut items) if !items.is_empty() => {
                    let at = self.at(items.len());
                    items.extend(items.get(at).cloned());
                    Value::Array(items)
                }
                Value::Object(mut map) if !map.is_empty() => {
                    let at = self.at(map.len());
                    let key = map.keys().nth(at).cloned().unwrap_or_default();
                    map.remove(&key);
                    Value::Object(map)
                }
                other => Value::from(vec![other.clone(), other]),
            },
            7 => match node.take() {
                Value::Object(mut map) => {
                    map.insert(text, Value::Bool(true));
                    Value::Object(map)
                }
                other => other,
            },
            _ => Value::Bool(self.chance.percent(50)),
        };
    }

    /// One edit of the words of a text.
    fn spliced_words(&mut self, input: &[u8]) -> Vec<u8> {
        let mut words = split(input);
        let at = self.at(words.len() + 1);
        let new = if self.chance.percent(80) {
            self.chance.pick(&self.words).cloned().unwrap_or_default()
        } else {
            self.text()
        };
        match self.chance.below(6) {
            0 if at < words.len() => drop(words.remove(at)),
            1 => words.insert(at, new),
            2 => {
                let other = self.at(words.len());
                if at < words.len() {
                    words.swap(at, other);
                }
            }
            3 => {
                let end = (at + 1 + self.at(8)).min(words.len());
                let part = words.get(at..end).unwrap_or_default().to_vec();
                let length = part.iter().map(Vec::len).sum::<usize>().max(1);
                let times = (1 + self.at(60)).min(MOST_WORDS / length + 1);
                let often = std::iter::repeat_n(part, times).flatten();
                drop(words.splice(at..at, often));
            }
            _ => match words.get_mut(at) {
                Some(word) => *word = new,
                None => words.push(new),
            },
        }
        words.concat()
    }
}

/// Runs of letters and digits, and each other byte alone.
fn split(text: &[u8]) -> Vec<Vec<u8>> {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_' || *byte >= 0x80;
    text.chunk_by(|a, b| plain(a) && plain(b)).map(<[u8]>::to_vec).collect()
}

#[derive(Clone, Debug)]
struct Field {
    number: u64,
    wire: u64,
    payload: Vec<u8>,
    /// A length that is none of the payload's.
    length: Option<u64>,
}

/// Fields of a message as far as they read; what follows is lost.
fn fields(mut bytes: &[u8]) -> Vec<Field> {
    let mut found = Vec::new();
    while let Some(tag) = read_varint(&mut bytes) {
        let (number, wire) = (tag >> 3, tag & 7);
        let payload = match wire {
            0 => read_varint(&mut bytes).map(varint),
            1 => take(&mut bytes, 8),
            2 => read_varint(&mut bytes)
                .and_then(|length| take(&mut bytes, usize::try_from(length).ok()?)),
            5 => take(&mut bytes, 4),
            _ => None,
        };
        let Some(payload) = payload else { break };
        found.push(Field { number, wire, payload, length: None });
    }
    found
}

fn joined(fields: &[Field]) -> Vec<u8> {
    let mut out = Vec::new();
    for field in fields {
        out.extend(varint(field.number << 3 | field.wire));
        if field.wire == 2 {
            out.extend(varint(field.length.unwrap_or(field.payload.len() as u64)));
        }
        out.extend_from_slice(&field.payload);
    }
    out
}

/// The field within itself that often.
fn nested(fields: &[Field], at: usize, depth: usize) -> Vec<u8> {
    let mut fields = fields.to_vec();
    if let Some(slot) = fields.get_mut(at) {
        let number = slot.number;
        for _ in 0..depth {
            let payload = joined(std::slice::from_ref(slot));
            *slot = Field { number, wire: 2, payload, length: None };
        }
    }
    joined(&fields)
}

fn varint(mut value: u64) -> Vec<u8> {
    let mut out = Vec::new();
    loop {
        let [low, ..] = (value & 0x7f).to_le_bytes();
        value >>= 7;
        if value == 0 {
            out.push(low);
            return out;
        }
        out.push(low | 0x80);
    }
}

fn read_varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let (first, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(first & 0x7f) << shift;
        if first & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

fn take(bytes: &mut &[u8], length: usize) -> Option<Vec<u8>> {
    let (head, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    Some(head.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_makes_the_same_inputs_again_and_a_message_is_taken_apart_without_loss() {
        let message =
            [vec![0x0a, 2, 0x0a, 0], vec![0x30, 0x96, 1], vec![0x3d, 1, 2, 3, 4]].concat();
        assert_eq!(joined(&fields(&message)), message);
        for form in [Form::Protobuf, Form::Json, Form::Words, Form::Bytes] {
            let made = |seed| {
                let mut mutator =
                    Mutator::new(form, vec![message.clone(), b"{\"a\":[1]}".into()], seed);
                (0..50).map(|_| mutator.make()).collect::<Vec<_>>()
            };
            assert_eq!(made(7), made(7));
            assert_ne!(made(7), made(8));
        }
    }
}
