//! Filter: a predicate that the cloud sends, parsed to a small tree (`correctness.md` k 1, F68).
//!
//! Promises: only this table's columns, literals and the operators below; whoever runs it renders from the tree, with
//! identifiers of the catalogue and bound literals. [`Filter`] printed reads back to the same tree.
//! Never: lets the received text reach a database; knows functions, casts, subqueries, comments or parameters.

mod evaluate;
mod parse;
mod print;

use crate::{
    error::Result,
    names::{ColumnName, TableName},
};

pub use evaluate::Truth;

/// A predicate over one table.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Filter {
    root: Expr,
}

/// A node of the tree.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Expr {
    /// At least two parts.
    And(Vec<Expr>),
    /// At least two parts.
    Or(Vec<Expr>),
    Not(Box<Expr>),
    /// At least one side is a column.
    Compare {
        left: Operand,
        op: Comparison,
        right: Operand,
    },
    Between {
        column: ColumnName,
        negated: bool,
        low: Operand,
        high: Operand,
    },
    In {
        column: ColumnName,
        negated: bool,
        list: Vec<Literal>,
    },
    /// `%` and `_` are the only signs with a meaning; nothing escapes them.
    Like {
        column: ColumnName,
        negated: bool,
        pattern: String,
    },
    IsNull {
        column: ColumnName,
        negated: bool,
    },
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Operand {
    Column(ColumnName),
    Literal(Literal),
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Literal {
    Text(String),
    /// Canonical decimal text: `-12.50`.
    Number(String),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

impl Comparison {
    /// ANSI spelling, good for every dialect.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Equal => "=",
            Self::NotEqual => "<>",
            Self::Less => "<",
            Self::LessOrEqual => "<=",
            Self::Greater => ">",
            Self::GreaterOrEqual => ">=",
        }
    }
}

impl Literal {
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Text(text) | Self::Number(text) => text,
        }
    }
}

impl Filter {
    /// Parses `text` against a table and its columns. A blank text is no filter and the caller's to tell apart.
    ///
    /// # Errors
    /// `FILTER_REFUSED` with the position (in characters, from 1) and what was wrong there.
    pub fn parse(text: &str, table: &TableName, columns: &[ColumnName]) -> Result<Self> {
        parse::parse(text, table, columns).map(|root| Self { root })
    }

    #[must_use]
    pub fn root(&self) -> &Expr {
        &self.root
    }

    /// Whether a row passes, by canonical texts: numbers compare as decimals where the literal is one, everything
    /// else as text. The databases have the last word; this is for tests and for rows already read.
    pub fn matches<'a>(&self, cell: &dyn Fn(&ColumnName) -> Option<&'a str>) -> bool {
        evaluate::truth(&self.root, cell) == Truth::True
    }
}

#[cfg(test)]
mod tests;
