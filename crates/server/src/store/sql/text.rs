//! Text, store floor: a statement's places, `?1` and `:name`, as PostgreSQL numbers them.
//!
//! Promises: what stands in quotes or behind `--` is left alone. An index that SQLite is told to take (`INDEXED BY`) is
//! left out: PostgreSQL chooses by itself.
//! Never: looks at a value.

const INDEXED: &str = "INDEXED BY ";

/// A statement with its places numbered, and the names of those, in that order, where it has names.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(in crate::store) struct Numbered {
    pub text: String,
    /// With the colon; empty where places are numbered already.
    pub names: Vec<String>,
}

pub(in crate::store) fn numbered(sql: &str) -> Numbered {
    let (mut text, mut names) = (String::with_capacity(sql.len()), Vec::<String>::new());
    let mut rest = sql;
    while let Some(first) = rest.chars().next() {
        let len = match first {
            '\'' | '"' => quoted(rest, first),
            'I' if rest.starts_with(INDEXED) => {
                let name = &rest[INDEXED.len()..];
                let word = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
                rest = &name[name.bytes().take_while(word).count()..];
                continue;
            }
            '-' if rest.starts_with("--") => rest.find('\n').unwrap_or(rest.len()),
            ':' if rest.starts_with("::") => 2,
            '?' => {
                let digits = rest[1..].bytes().take_while(u8::is_ascii_digit).count();
                text.push('$');
                text.push_str(&rest[1..=digits]);
                rest = &rest[1 + digits..];
                continue;
            }
            ':' => {
                let word = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
                let (name, behind) = rest.split_at(1 + rest[1..].bytes().take_while(word).count());
                let known = names.iter().position(|known| known == name);
                let place = known.unwrap_or_else(|| {
                    names.push(name.to_owned());
                    names.len() - 1
                });
                text.push_str(&format!("${}", place + 1));
                rest = behind;
                continue;
            }
            other => other.len_utf8(),
        };
        let (kept, behind) = rest.split_at(len);
        text.push_str(kept);
        rest = behind;
    }
    Numbered { text, names }
}

/// Bytes up to the quote that ends it; a doubled one ends it and begins the next, which comes to the same.
fn quoted(text: &str, quote: char) -> usize {
    text[1..].find(quote).map_or(text.len(), |end| end + 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_numbered_and_quotes_left_alone() {
        let plain = numbered(
            "SELECT ?1, '?2 it''s :no', \"a:b\" FROM t WHERE x = ?12 -- :no ?9\n AND y = ?1",
        );
        let text = "SELECT $1, '?2 it''s :no', \"a:b\" FROM t WHERE x = $12 -- :no ?9\n AND y = $1";
        assert_eq!(plain, Numbered { text: text.into(), names: vec![] });
        let named = numbered("WHERE a = :a AND (:b = '' OR b::text = :b_c) AND c = :a");
        assert_eq!(named.text, "WHERE a = $1 AND ($2 = '' OR b::text = $3) AND c = $1");
        assert_eq!(named.names, [":a", ":b", ":b_c"]);
        let hinted = numbered("FROM t INDEXED BY t_by_a WHERE a = ?1");
        assert_eq!(hinted.text, "FROM t  WHERE a = $1");
        assert_eq!(numbered("'open").text, "'open");
    }
}
