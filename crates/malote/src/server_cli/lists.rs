//! Lists: records as a table for people or as JSON lines for programs.
//!
//! Promises: columns are as wide as their widest cell; control characters of data cannot move the cursor.
//! Never: cuts a value.

use serde::Serialize;
use server::model::catalog::At;

use crate::{lang::Lang, out};

/// How a command answers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Form {
    /// For a program: JSON, a line for each record, alike in every language.
    pub(super) json: bool,
    /// For a person: headings, and what stands where there is no value.
    pub(super) lang: Lang,
}

impl Form {
    /// A line of talk.
    pub(super) fn talk(self, en: impl AsRef<str>, pt: impl AsRef<str>) {
        out::talk(self.lang.pick(en.as_ref(), pt.as_ref()));
    }

    /// That a secret is seen this once.
    pub(super) fn only_now(self, what: &str) {
        self.talk(
            format!("keep the {what} now: it is not shown again"),
            format!("guarde o {what} agora: ele não será mostrado de novo"),
        );
    }

    /// How to go on behind a full page.
    pub(super) fn more(self, last: &str) {
        self.talk(format!("more: --after {last}"), format!("há mais: --after {last}"));
    }
}

/// A column: its head in English and Portuguese, and how a record fills it. What `--after` takes stands in the first
/// and is the same in both.
pub(super) type Column<T> = ([&'static str; 2], fn(&T, Lang) -> String);

/// The moment at which something ended; "no" where it did not.
pub(super) fn when(at: Option<At>, lang: Lang) -> String {
    at.map_or_else(|| lang.yes(false).to_owned(), |at| at.to_string())
}

/// Prints records.
pub(super) fn show<T: Serialize>(form: Form, records: &[T], columns: &[Column<T>]) {
    if form.json {
        for record in records {
            out::data(serde_json::to_string(record).unwrap_or_default());
        }
        return;
    }
    let head: Vec<_> = columns.iter().map(|(names, _)| *names).collect();
    let line = |record| columns.iter().map(|(_, cell)| cell(record, form.lang)).collect();
    print(form, &head, records.iter().map(line).collect());
}

/// As [`show`], but silent where there is no record.
pub(super) fn show_some<T: Serialize>(form: Form, records: &[T], columns: &[Column<T>]) {
    if !records.is_empty() {
        show(form, records, columns);
    }
}

/// As [`show`], and tells how to go on where the page is full.
pub(super) fn show_page<T: Serialize>(
    form: Form,
    records: &[T],
    columns: &[Column<T>],
    limit: u32,
) {
    show(form, records, columns);
    if let (Some(last), Some((_, first))) = (records.last(), columns.first())
        && records.len() >= limit as usize
        && !form.json
    {
        form.more(&format!("{:?}", first(last, form.lang)));
    }
}

/// Prints cells below their heads, or that there are none.
pub(super) fn print(form: Form, head: &[[&str; 2]], cells: Vec<Vec<String>>) {
    if cells.is_empty() {
        form.talk("none", "nada");
        return;
    }
    grid(in_words(head, form.lang), cells).into_iter().for_each(out::data);
}

fn in_words(head: &[[&str; 2]], lang: Lang) -> Vec<String> {
    head.iter().map(|[en, pt]| lang.pick(*en, *pt).to_owned()).collect()
}

/// Lines of a table whose columns are known only now.
fn grid(head: Vec<String>, cells: Vec<Vec<String>>) -> Vec<String> {
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
    fn headings_are_in_the_language_of_the_person() {
        let head = [["TABLE", "TABELA"], ["ERP", "ERP"]];
        assert_eq!(in_words(&head, Lang::En), ["TABLE", "ERP"]);
        assert_eq!(in_words(&head, Lang::Pt), ["TABELA", "ERP"]);
    }

    #[test]
    fn columns_are_aligned_by_characters_and_control_characters_are_tamed() {
        let cells = [["NAME", "N"], ["ação", "1"], ["b\u{1b}[2J", "22"]];
        let mut cells = cells.map(|line| line.map(str::to_owned).to_vec()).into_iter();
        let lines = grid(cells.next().unwrap(), cells.collect());
        assert_eq!(lines, ["NAME   N", "ação   1", "b\u{fffd}[2J  22"]);
    }
}
