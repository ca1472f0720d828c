//! Gather: with PostgreSQL the rows of a round go into their tables together: by `COPY` where none of their keys can be
//! there yet, else by `COPY` beside the table and one upsert (`correctness.md` h).
//!
//! Promises: of one key the last image of the round alone is written (F54); rows that the database refuses are found by
//! halves, and told one by one.
//! Never: changes a table; keeps more than a round brings.

use std::{
    collections::{BTreeMap, HashMap},
    ops::Range,
};

use bytes::{Bytes, BytesMut};
use protocol::{Code, Result, value::push_i64};

use super::{
    SpaceTx,
    apply::Origin,
    image::Image,
    tables::{StagedTable, refused},
    upsert,
};
use crate::{
    model::schema::Fitted,
    store::{postgres::Session, sql::failed},
};

/// Rows of a round that wait, by their table's folded name.
#[derive(Debug, Default)]
pub(super) struct Gathered(BTreeMap<String, Pending>);

/// Which row of which of the round's messages.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Sender {
    pub(super) message: usize,
    pub(super) row: i64,
}

/// Rows of one table, as `COPY` takes them.
#[derive(Debug)]
struct Pending {
    table: StagedTable,
    text: String,
    lines: Vec<Line>,
    /// The line that each key has.
    latest: HashMap<Vec<u8>, usize>,
}

#[derive(Debug)]
struct Line {
    sender: Sender,
    /// Where it stands in the text.
    text: Range<usize>,
    /// A later image of its key came.
    is_stale: bool,
}

impl Gathered {
    /// Takes an image in.
    pub(super) fn add(
        &mut self,
        table: &StagedTable,
        (origin, sender): (Origin<'_>, Sender),
        image: Image<'_>,
    ) {
        let pending = self.0.entry(table.name.folded().to_owned()).or_insert_with(|| Pending {
            table: table.clone(),
            text: String::new(),
            lines: Vec::new(),
            latest: HashMap::new(),
        });
        let (at, begins) = (pending.lines.len(), pending.text.len());
        line(&mut pending.text, origin, sender.row, &image);
        let text = begins..pending.text.len();
        pending.lines.push(Line { sender, text, is_stale: false });
        if let Some(before) = pending.latest.insert(image.key.0, at)
            && let Some(before) = pending.lines.get_mut(before)
        {
            before.is_stale = true;
        }
    }

    /// Writes the rows of one table that wait; tells those that the database refused.
    pub(super) fn flush(&mut self, tx: &SpaceTx<'_>, folded: &str) -> Result<Vec<Sender>> {
        let Some(pending) = self.0.remove(folded) else { return Ok(Vec::new()) };
        pending.write(tx)
    }

    /// As [`Self::flush`], of all tables.
    pub(super) fn flush_all(&mut self, tx: &SpaceTx<'_>) -> Result<Vec<Sender>> {
        let mut refused = Vec::new();
        while let Some((_, pending)) = self.0.pop_first() {
            refused.extend(pending.write(tx)?);
        }
        Ok(refused)
    }
}

impl Pending {
    fn write(self, tx: &SpaceTx<'_>) -> Result<Vec<Sender>> {
        let Some(session) = tx.session() else { return Ok(Vec::new()) };
        let Some(first) = self.latest.keys().min() else { return Ok(Vec::new()) };
        let sql = format!("SELECT EXISTS (SELECT 1 FROM {} WHERE _key >= ?1)", self.table.quoted());
        let mut statement = tx.prepare(&sql).map_err(failed)?;
        let meets = statement.query_row([first.as_slice()], |row| row.get::<bool>(0));
        let way = if meets.map_err(failed)? { Way::Upsert } else { Way::Copy };
        let fresh: Vec<Line> = self.lines.into_iter().filter(|line| !line.is_stale).collect();
        let writing = Writing { session, way, table: self.table, text: self.text.into() };
        let mut refused = Vec::new();
        writing.put(tx, &fresh, &mut refused)?;
        Ok(refused)
    }
}

/// Rows of one table on their way into it.
struct Writing<'s> {
    session: &'s Session,
    way: Way,
    table: StagedTable,
    text: Bytes,
}

impl Writing<'_> {
    /// Writes those lines, or as many of them as the table takes.
    fn put(&self, tx: &SpaceTx<'_>, lines: &[Line], refused: &mut Vec<Sender>) -> Result<()> {
        if lines.is_empty() {
            return Ok(());
        }
        match (tx.attempt(|| self.copy(lines)), lines) {
            (Ok(()), _) => Ok(()),
            (Err(error), _) if error.code != Code::ValueUnfit => Err(error),
            (Err(_), [only]) => {
                refused.push(only.sender);
                Ok(())
            }
            (Err(_), _) => {
                let (head, tail) = lines.split_at(lines.len() / 2);
                self.put(tx, head, refused)?;
                self.put(tx, tail, refused)
            }
        }
    }

    fn copy(&self, lines: &[Line]) -> Result<()> {
        let (table, session, text) = (&self.table, self.session, self.text_of(lines));
        let columns = format!("_key, _seq, _deleted, _batch, _message{}", table.list());
        let done = match self.way {
            Way::Copy => {
                let sql = format!("COPY {} ({columns}) FROM STDIN", table.quoted());
                session.copy_lines(&sql, text)
            }
            Way::Upsert => {
                let make = format!("CREATE TEMPORARY TABLE {COMING} (LIKE {})", table.quoted());
                let copy = format!("COPY {COMING} ({columns}) FROM STDIN");
                let select = format!("SELECT {columns} FROM {COMING}");
                let upsert = format!("{}; DROP TABLE {COMING}", upsert::text(table, &select));
                session
                    .batch(&make)
                    .and_then(|()| session.copy_lines(&copy, text))
                    .and_then(|()| session.batch(&upsert))
            }
        };
        done.map_err(|cause| refused(cause, upsert::REFUSED))
    }

    /// The lines as they are sent; where they follow each other, what is there already.
    fn text_of(&self, lines: &[Line]) -> Bytes {
        let follows = |pair: &[Line]| matches!(pair, [a, b] if a.text.end == b.text.start);
        match lines {
            [first, .., last] if lines.windows(2).all(follows) => {
                self.text.slice(first.text.start..last.text.end)
            }
            _ => {
                let mut text = BytesMut::new();
                for line in lines {
                    text.extend_from_slice(&self.text.slice(line.text.clone()));
                }
                text.freeze()
            }
        }
    }
}

/// Where rows wait beside their table, for one statement.
const COMING: &str = "pg_temp.malote_coming";

/// How rows get into a table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Way {
    /// No key at or behind theirs is staged.
    Copy,
    Upsert,
}

/// Appends an image as a line of `COPY`'s text form.
fn line(out: &mut String, origin: Origin<'_>, row: i64, image: &Image<'_>) {
    hex(out, &image.key.0);
    for number in [origin.row_seq(row), i64::from(image.deleted), origin.batch.0] {
        out.push('\t');
        push_i64(out, number);
    }
    out.push('\t');
    push_i64(out, origin.number.0.into());
    for value in &image.values {
        out.push('\t');
        match value {
            None => out.push_str("\\N"),
            Some(Fitted::Integer(integer)) => push_i64(out, *integer),
            Some(Fitted::Boolean(truth)) => out.push(if *truth { '1' } else { '0' }),
            Some(Fitted::Text(text)) => escape(out, text),
            Some(Fitted::Blob(bytes)) => hex(out, bytes),
        }
    }
    out.push('\n');
}

/// Bytes in PostgreSQL's hexadecimal form; its backslash is doubled, as `COPY` takes it.
fn hex(out: &mut String, bytes: &[u8]) {
    const DIGITS: [char; 16] =
        ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'a', 'b', 'c', 'd', 'e', 'f'];
    out.push_str("\\\\x");
    for byte in bytes {
        out.extend(
            [byte >> 4, byte & 15].map(|half| DIGITS.get(usize::from(half)).unwrap_or(&'0')),
        );
    }
}

/// A text with what `COPY` reads as its own marks behind a backslash.
fn escape(out: &mut String, text: &str) {
    let mut rest = text;
    let mark = |byte: u8| matches!(byte, b'\\' | b'\n' | b'\r' | b'\t');
    while let Some((head, tail)) =
        rest.bytes().position(mark).and_then(|at| rest.split_at_checked(at))
    {
        out.push_str(head);
        let mut marks = tail.chars();
        out.push_str(match marks.next() {
            Some('\n') => "\\n",
            Some('\r') => "\\r",
            Some('\t') => "\\t",
            _ => "\\\\",
        });
        rest = marks.as_str();
    }
    out.push_str(rest);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn escaped(text: &str) -> String {
        let mut out = String::new();
        escape(&mut out, text);
        out
    }

    #[test]
    fn what_copy_reads_as_its_own_is_escaped() {
        assert_eq!(escaped("a\\b\tc\nd\re"), "a\\\\b\\tc\\nd\\re");
        assert_eq!(escaped("\\N"), "\\\\N", "a text is no NULL");
        assert_eq!(escaped(""), "");
        let mut out = String::new();
        hex(&mut out, &[0, 0xA5, 255]);
        assert_eq!(out, "\\\\x00a5ff");
    }

    proptest! {
        #[test]
        fn a_text_reads_back_from_its_escaped_form(text in "[a\\\\\\n\\r\\té\"]{0,20}") {
            let line = escaped(&text);
            prop_assert!(!line.contains(['\n', '\r', '\t']));
            let (mut back, mut marks) = (String::new(), line.chars());
            while let Some(mark) = marks.next() {
                back.push(match mark {
                    '\\' => match marks.next() {
                        Some('n') => '\n',
                        Some('r') => '\r',
                        Some('t') => '\t',
                        other => other.unwrap_or('?'),
                    },
                    other => other,
                });
            }
            prop_assert_eq!(back, text);
        }
    }
}
