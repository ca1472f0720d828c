//! Dialect: SQL text with bound values, rendered from trees and catalogue names alone.
//!
//! Promises: identifiers are the catalogue's and quoted; every literal is a bound parameter (F68).
//! Never: holds a byte of a received filter, takes locks or weakens isolation (F13).

use protocol::{
    Code, Error, Result,
    filter::{Expr, Filter, Literal, Operand},
    names::ColumnName,
};

use super::{ColumnSource, TableShape};

/// `"name"`, good for PostgreSQL and SQLite.
pub(super) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// `"schema"."table"`.
pub(super) fn quoted_table(schema: Option<&str>, table: &str) -> String {
    match schema {
        Some(schema) => format!("{}.{}", quoted(schema), quoted(table)),
        None => quoted(table),
    }
}

/// How a database spells what dialects differ in.
pub(super) trait Dialect {
    /// Binds a literal for a comparison with that physical column and gives its place in the text.
    fn bind(&mut self, literal: &Literal, column: Option<&str>) -> Result<String>;

    /// `column LIKE pattern` where nothing escapes `%` and `_` and case counts.
    fn like(&mut self, column: &str, pattern: &str) -> String;
}

/// A filter as a condition over that table.
pub(super) fn render(
    filter: &Filter,
    shape: &TableShape,
    dialect: &mut impl Dialect,
) -> Result<String> {
    expr(filter.root(), shape, dialect)
}

fn expr(node: &Expr, shape: &TableShape, dialect: &mut impl Dialect) -> Result<String> {
    let not = |negated: &bool| if *negated { "NOT " } else { "" };
    Ok(match node {
        Expr::And(parts) => all(parts, " AND ", shape, dialect)?,
        Expr::Or(parts) => all(parts, " OR ", shape, dialect)?,
        Expr::Not(inner) => format!("NOT ({})", expr(inner, shape, dialect)?),
        Expr::Compare { left, op, right } => {
            let column = column_of(left, shape)?.or(column_of(right, shape)?);
            let left = operand(left, column, shape, dialect)?;
            let right = operand(right, column, shape, dialect)?;
            format!("{left} {} {right}", op.as_str())
        }
        Expr::Between { column, negated, low, high } => {
            let column = physical(column, shape)?;
            let low = operand(low, Some(column), shape, dialect)?;
            let high = operand(high, Some(column), shape, dialect)?;
            format!("({} {}BETWEEN {low} AND {high})", quoted(column), not(negated))
        }
        Expr::In { column, negated, list } => {
            let column = physical(column, shape)?;
            let list: Result<Vec<_>> =
                list.iter().map(|literal| dialect.bind(literal, Some(column))).collect();
            format!("{} {}IN ({})", quoted(column), not(negated), list?.join(", "))
        }
        Expr::Like { column, negated, pattern } => {
            let like = dialect.like(physical(column, shape)?, pattern);
            format!("{}({like})", not(negated))
        }
        Expr::IsNull { column, negated } => {
            format!("{} IS {}NULL", quoted(physical(column, shape)?), not(negated))
        }
    })
}

fn all(
    parts: &[Expr],
    between: &str,
    shape: &TableShape,
    dialect: &mut impl Dialect,
) -> Result<String> {
    let parts: Result<Vec<_>> = parts.iter().map(|part| expr(part, shape, dialect)).collect();
    Ok(format!("({})", parts?.join(between)))
}

fn operand(
    side: &Operand,
    other: Option<&str>,
    shape: &TableShape,
    dialect: &mut impl Dialect,
) -> Result<String> {
    match side {
        Operand::Column(column) => physical(column, shape).map(quoted),
        Operand::Literal(literal) => dialect.bind(literal, other),
    }
}

fn column_of<'s>(side: &Operand, shape: &'s TableShape) -> Result<Option<&'s str>> {
    match side {
        Operand::Column(column) => physical(column, shape).map(Some),
        Operand::Literal(_) => Ok(None),
    }
}

/// The physical column behind a wire column; the columns that a profile adds are not in the database.
fn physical<'s>(name: &ColumnName, shape: &'s TableShape) -> Result<&'s str> {
    let column = shape.columns.iter().find(|column| column.name == *name);
    match column.map(|column| &column.from) {
        Some(ColumnSource::Physical(physical)) => Ok(physical),
        _ => Err(Error::new(
            Code::FilterRefused,
            format!("column {name} is not in the database's table {}", shape.wire),
        )),
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};
    use protocol::value::{ColumnType, TypeName};

    use super::*;
    use crate::source::ColumnShape;

    const COLUMNS: [&str; 8] =
        ["DATAMOVIMENTO", "IDLAN", "CODCOLIGADA", "STATUS", "FKD_DTBAIX", "E1_VALOR", "A", "_B$1"];
    /// One filter a line, as the parser's own tests take them.
    const REAL: &str = include_str!("../../../protocol/tests/filters/real.txt");

    fn shape() -> TableShape {
        let column = |name: &str| ColumnShape {
            name: name.parse().unwrap(),
            type_name: TypeName::plain(ColumnType::String),
            from: ColumnSource::Physical(name.to_lowercase()),
            mask: None,
        };
        TableShape {
            wire: "TMOV".parse().unwrap(),
            physical: (None, "tmov".into()),
            columns: COLUMNS.map(column).into(),
            key: Vec::new(),
            page_key: Vec::new(),
            stamp: None,
            soft_delete: None,
            shared_key: false,
            fingerprint: [0; 16],
        }
    }

    fn parse(text: &str) -> Option<Filter> {
        let columns: Vec<ColumnName> = COLUMNS.iter().map(|name| name.parse().unwrap()).collect();
        Filter::parse(text, &"TMOV".parse().unwrap(), &columns).ok()
    }

    /// Binds as a database does.
    #[derive(Default)]
    struct Bound(Vec<String>);

    impl Dialect for Bound {
        fn bind(&mut self, literal: &Literal, _: Option<&str>) -> Result<String> {
            self.0.push(literal.as_str().to_owned());
            Ok(format!("${}", self.0.len()))
        }

        fn like(&mut self, column: &str, pattern: &str) -> String {
            self.0.push(pattern.to_owned());
            format!("{} LIKE ${}", quoted(column), self.0.len())
        }
    }

    /// Writes literals as a filter has them, so that the rendered text can be read as one again.
    struct Written;

    impl Dialect for Written {
        fn bind(&mut self, literal: &Literal, _: Option<&str>) -> Result<String> {
            Ok(literal.to_string())
        }

        fn like(&mut self, column: &str, pattern: &str) -> String {
            format!("{} LIKE {}", quoted(column), Literal::Text(pattern.to_owned()))
        }
    }

    /// One form for `NOT (x IN …)` and `x NOT IN …`.
    fn plain(node: &Expr) -> Expr {
        let negated = |yes: bool, of: Expr| if yes { Expr::Not(Box::new(of)) } else { of };
        match node.clone() {
            Expr::And(parts) => Expr::And(parts.iter().map(plain).collect()),
            Expr::Or(parts) => Expr::Or(parts.iter().map(plain).collect()),
            Expr::Not(inner) => Expr::Not(Box::new(plain(&inner))),
            Expr::Between { column, negated: no, low, high } => {
                negated(no, Expr::Between { column, negated: false, low, high })
            }
            Expr::In { column, negated: no, list } => {
                negated(no, Expr::In { column, negated: false, list })
            }
            Expr::Like { column, negated: no, pattern } => {
                negated(no, Expr::Like { column, negated: false, pattern })
            }
            Expr::IsNull { column, negated: no } => {
                negated(no, Expr::IsNull { column, negated: false })
            }
            compare @ Expr::Compare { .. } => compare,
        }
    }

    /// Without the quotes of names; those within literals stay.
    fn unquoted(sql: &str) -> String {
        let mut within = false;
        let kept = sql.chars().filter(|sign| {
            within ^= *sign == '\'';
            within || *sign != '"'
        });
        kept.collect()
    }

    proptest! {
        #[test]
        fn f68_what_is_rendered_reads_back_as_the_same_tree_and_holds_no_literal(
            picks in vec((0usize..200, 0u8..4), 1..5)
        ) {
            let lines: Vec<&str> = REAL.lines().collect();
            let mut text = String::new();
            for (at, join) in picks {
                let one = lines[at % lines.len()];
                text = match (text.is_empty(), join) {
                    (true, _) => one.to_owned(),
                    (_, 0) => format!("({text}) AND ({one})"),
                    (_, 1) => format!("({text}) OR NOT ({one})"),
                    (_, 2) => format!("NOT ({text}) AND {one}"),
                    _ => format!("{one} OR ({text})"),
                };
            }
            let Some(filter) = parse(&text) else { return Ok(()) };
            let written = render(&filter, &shape(), &mut Written).unwrap();
            let again = parse(&unquoted(&written));
            let again = again.unwrap_or_else(|| panic!("{text} is rendered {written}"));
            prop_assert_eq!(plain(again.root()), plain(filter.root()), "{}", written);
            let mut bound = Bound::default();
            let sql = render(&filter, &shape(), &mut bound).unwrap();
            prop_assert!(!sql.contains('\''), "{}", sql);
            // What is no name between quotes is words, signs, and numbers of parameters.
            let outside: String = sql.split('"').step_by(2).collect();
            for word in outside.split(|sign: char| !sign.is_alphanumeric() && sign != '$') {
                let known = ["", "AND", "OR", "NOT", "IN", "LIKE", "BETWEEN", "IS", "NULL"].contains(&word);
                let place = word.strip_prefix('$').and_then(|n| n.parse::<usize>().ok());
                prop_assert!(known || place.is_some_and(|n| n <= bound.0.len()), "{} in {}", word, sql);
            }
        }
    }
}
