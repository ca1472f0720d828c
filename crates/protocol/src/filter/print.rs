//! Printing: the text of a tree, fully parenthesised where parts are joined. For audit logs and tests; no database
//! gets it.

use std::fmt;

use super::{Expr, Filter, Literal, Operand};

impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.root)
    }
}

impl fmt::Display for Expr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let not = |negated: &bool| if *negated { "NOT " } else { "" };
        match self {
            Self::And(parts) => join(f, parts, " AND "),
            Self::Or(parts) => join(f, parts, " OR "),
            Self::Not(inner) => {
                f.write_str("NOT ")?;
                part(f, inner)
            }
            Self::Compare { left, op, right } => write!(f, "{left} {} {right}", op.as_str()),
            Self::Between { column, negated, low, high } => {
                write!(f, "{column} {}BETWEEN {low} AND {high}", not(negated))
            }
            Self::In { column, negated, list } => {
                write!(f, "{column} {}IN (", not(negated))?;
                for (at, literal) in list.iter().enumerate() {
                    write!(f, "{}{literal}", if at == 0 { "" } else { ", " })?;
                }
                f.write_str(")")
            }
            Self::Like { column, negated, pattern } => {
                write!(f, "{column} {}LIKE {}", not(negated), Literal::Text(pattern.clone()))
            }
            Self::IsNull { column, negated } => write!(f, "{column} IS {}NULL", not(negated)),
        }
    }
}

fn join(f: &mut fmt::Formatter<'_>, parts: &[Expr], between: &str) -> fmt::Result {
    for (at, inner) in parts.iter().enumerate() {
        f.write_str(if at == 0 { "" } else { between })?;
        part(f, inner)?;
    }
    Ok(())
}

fn part(f: &mut fmt::Formatter<'_>, inner: &Expr) -> fmt::Result {
    match inner {
        Expr::And(_) | Expr::Or(_) => write!(f, "({inner})"),
        _ => write!(f, "{inner}"),
    }
}

impl fmt::Display for Operand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Column(column) => write!(f, "{column}"),
            Self::Literal(literal) => write!(f, "{literal}"),
        }
    }
}

impl fmt::Display for Literal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => write!(f, "'{}'", text.replace('\'', "''")),
            Self::Number(text) => f.write_str(text),
        }
    }
}
