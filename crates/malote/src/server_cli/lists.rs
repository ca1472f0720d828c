//! Lists: records as a table for people or as JSON lines for programs.
//!
//! Promises: columns are as wide as their widest cell; control characters of data cannot move the cursor.
//! Never: cuts a value.

use serde::Serialize;

use crate::out;

/// A column: its head and how a record fills it.
pub(super) type Column<T> = (&'static str, fn(&T) -> String);

/// Prints records.
pub(super) fn show<T: Serialize>(json: bool, records: &[T], columns: &[Column<T>]) {
    if json {
        for record in records {
            out::data(serde_json::to_string(record).unwrap_or_default());
        }
        return;
    }
    if records.is_empty() {
        out::talk("none");
        return;
    }
    for line in table(records, columns) {
        out::data(line);
    }
}

/// As [`show`], and tells how to go on where the page is full.
pub(super) fn show_page<T: Serialize>(
    json: bool,
    records: &[T],
    columns: &[Column<T>],
    limit: u32,
) {
    show(json, records, columns);
    if let (Some(last), Some((_, first))) = (records.last(), columns.first())
        && records.len() >= limit as usize
        && !json
    {
        out::talk(format!("more: --after {:?}", first(last)));
    }
}

fn table<T>(records: &[T], columns: &[Column<T>]) -> Vec<String> {
    let head = columns.iter().map(|(name, _)| (*name).to_owned()).collect();
    let cells = records.iter().map(|record| columns.iter().map(|(_, cell)| cell(record)).collect());
    grid(head, cells.collect())
}

/// Lines of a table whose columns are known only now.
pub(super) fn grid(head: Vec<String>, cells: Vec<Vec<String>>) -> Vec<String> {
    let tamed = |line: Vec<String>| line.iter().map(|cell| tame(cell)).collect::<Vec<_>>();
    let lines: Vec<Vec<String>> = std::iter::once(head).chain(cells).map(tamed).collect();
    let width = |at: usize| {
        lines
            .iter()
            .filter_map(|line| line.get(at))
            .map(|cell| cell.chars().count())
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<usize> = (0..lines.first().map_or(0, Vec::len)).map(width).collect();
    let pad = |line: &Vec<String>| {
        let padded: Vec<String> =
            line.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        padded.join("  ").trim_end().to_owned()
    };
    lines.iter().map(pad).collect()
}

fn tame(text: &str) -> String {
    text.chars().map(|sign| if sign.is_control() { '\u{fffd}' } else { sign }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_by_characters_and_control_characters_are_tamed() {
        let records = [("ação", "1"), ("b\u{1b}[2J", "22")];
        let columns: [Column<(&str, &str)>; 2] = [("NAME", |r| r.0.into()), ("N", |r| r.1.into())];
        assert_eq!(table(&records, &columns), ["NAME   N", "ação   1", "b\u{fffd}[2J  22"]);
    }
}
