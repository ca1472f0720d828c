//! Verify: every table against its source, row by row, value by value, read through the agent's `Source` and the
//! server's staging service.
//!
//! Promises: every live row of the source is looked up by its key and compared in every column; rows that staging has
//! beyond them are found by key; what the source itself cannot give (a poison row) counts as a difference.
//! Never: asks the agent what it sent.

use agent::source::{AnySource, Page, ReadLimit, Source as _, TableShape};
use protocol::{Error, Result, key::KeyBytes, names::ColumnName};

use super::{
    cloud::{Cloud, Login},
    verdict::{Keys, Kind, Verdict},
};

/// Rows of one page: a thousand keys is what one look-up may hold.
const PAGE: ReadLimit = ReadLimit { rows: 1_000, bytes: 8 * 1024 * 1024 };

/// Rows as staging has them, in the order they were asked for; `None` = no live row of that key.
#[derive(Debug, Default)]
pub(crate) struct Staged {
    pub(crate) columns: Vec<ColumnName>,
    pub(crate) rows: Vec<Option<Vec<Option<String>>>>,
}

/// Compares one table.
pub(crate) async fn table(
    cloud: &Cloud,
    login: &Login,
    source: &AnySource,
    shape: &TableShape,
) -> Result<Verdict> {
    let mut verdict = Verdict { tables: 1, ..Verdict::default() };
    let mut keys = Keys::default();
    let mut after = None;
    loop {
        let page = source.chunk(shape, after.as_ref(), None, PAGE).await?;
        let wanted = row_keys(shape, &page);
        let staged = cloud.staged(&login.place, &shape.wire, wanted.clone()).await?;
        judge(shape, &page, &wanted, &staged, (&mut verdict, &mut keys));
        let Some(last) = page.last() else { break };
        after = Some(last.key.clone());
        if page.is_complete() {
            break;
        }
    }
    let mut behind = None;
    loop {
        let live = cloud.live_keys(&login.place, &shape.wire, behind.as_ref()).await?;
        let Some(last) = live.last() else { break };
        behind = Some(last.clone());
        for key in &live {
            let hash = Keys::hash(key);
            if !keys.contains(&hash) {
                verdict.differs(shape.wire.as_str(), &hash, Kind::Extra, Vec::new());
            }
        }
    }
    Ok(verdict)
}

fn row_keys(shape: &TableShape, page: &Page) -> Vec<KeyBytes> {
    let key = |row| {
        KeyBytes::of(shape.key.iter().map(|column| page.cell(row, *column).unwrap_or_default()))
    };
    (0..page.len()).map(key).collect()
}

fn judge(
    shape: &TableShape,
    page: &Page,
    keys: &[KeyBytes],
    staged: &Staged,
    (verdict, seen): (&mut Verdict, &mut Keys),
) {
    let table = shape.wire.as_str();
    // Where each column of the source stands in staging; a column that is not there is NULL in every row.
    let places: Vec<Option<usize>> = shape
        .columns
        .iter()
        .map(|column| staged.columns.iter().position(|name| *name == column.name))
        .collect();
    for poison in page.poison() {
        verdict.rows += 1;
        let key = KeyBytes::of(poison.key.0.iter().map(String::as_str));
        let why = Error::new(poison.code, poison.words.clone());
        verdict.quarantined(table, &Keys::hash(&key), &why);
    }
    for (row, key) in keys.iter().enumerate() {
        verdict.rows += 1;
        let hash = Keys::hash(key);
        if !seen.insert(hash) {
            verdict.differs(table, &hash, Kind::KeyTwice, Vec::new());
        }
        let Some(Some(cells)) = staged.rows.get(row) else {
            verdict.differs(table, &hash, Kind::Missing, Vec::new());
            continue;
        };
        let unlike = |at: &usize| {
            let other = places.get(*at).copied().flatten();
            let other = other.and_then(|place| cells.get(place)).and_then(Option::as_deref);
            page.cell(row, *at) != other
        };
        let names: Vec<String> = (0..shape.columns.len())
            .filter(unlike)
            .filter_map(|at| shape.columns.get(at))
            .map(|column| column.name.to_string())
            .collect();
        if !names.is_empty() {
            verdict.differs(table, &hash, Kind::Values, names);
        }
    }
}

#[cfg(test)]
mod tests {
    use agent::source::{ColumnShape, ColumnSource, PageBuilder, PageKey};
    use protocol::value::{ColumnType, TypeName};

    use super::*;

    fn shape() -> TableShape {
        let column = |name: &str| ColumnShape {
            name: name.parse().unwrap(),
            type_name: TypeName::plain(ColumnType::String),
            from: ColumnSource::Physical(name.into()),
            mask: None,
        };
        TableShape {
            wire: "T".parse().unwrap(),
            physical: (None, "T".into()),
            columns: ["ID", "NAME"].map(column).into(),
            key: vec![0],
            page_key: vec!["ID".into()],
            stamp: None,
            soft_delete: None,
            shared_key: false,
            fingerprint: [0; 16],
        }
    }

    fn page(rows: &[(&str, Option<&str>)]) -> Page {
        let mut page = PageBuilder::new(2);
        for (id, name) in rows {
            let write = |text: &str, out: &mut String| {
                out.push_str(text);
                Ok(())
            };
            page.value(|out| write(id, out)).unwrap();
            match name {
                Some(name) => page.value(|out| write(name, out)).unwrap(),
                None => page.null(),
            }
            page.row(PageKey(vec![(*id).into()]), None, true, false);
        }
        page.finish(true)
    }

    fn judged(rows: &[(&str, Option<&str>)], staged: &Staged) -> Verdict {
        let (shape, page) = (shape(), page(rows));
        let keys = row_keys(&shape, &page);
        let (mut verdict, mut seen) = (Verdict::default(), Keys::default());
        judge(&shape, &page, &keys, staged, (&mut verdict, &mut seen));
        verdict
    }

    fn staged(columns: &[&str], rows: &[Option<&[Option<&str>]>]) -> Staged {
        let cells = |row: &[Option<&str>]| row.iter().map(|cell| cell.map(str::to_owned)).collect();
        Staged {
            columns: columns.iter().map(|name| name.parse().unwrap()).collect(),
            rows: rows.iter().map(|row| row.map(cells)).collect(),
        }
    }

    #[test]
    fn equal_rows_are_equal_whatever_the_order_and_case_of_columns() {
        let there =
            staged(&["name", "id"], &[Some(&[Some("x"), Some("1")]), Some(&[None, Some("2")])]);
        let verdict = judged(&[("1", Some("x")), ("2", None)], &there);
        assert!(verdict.is_equal(), "{verdict:?}");
        assert_eq!(verdict.rows, 2);
    }

    #[test]
    fn null_and_empty_missing_rows_and_equal_keys_are_differences() {
        let there = staged(
            &["ID", "NAME"],
            &[Some(&[Some("1"), Some("")]), None, Some(&[Some("3"), Some("z")])],
        );
        let verdict = judged(&[("1", None), ("2", Some("y")), ("3", Some("z"))], &there);
        let kinds: Vec<Kind> = verdict.first.iter().map(|found| found.kind).collect();
        assert_eq!(kinds, [Kind::Values, Kind::Missing]);
        assert_eq!(verdict.first[0].columns, ["NAME"]);
        let twice = staged(&["ID"], &[Some(&[Some("1")]), Some(&[Some("1")])]);
        assert_eq!(judged(&[("1", None), ("1", None)], &twice).first[0].kind, Kind::KeyTwice);
    }
}
