//! What a restored copy is asked before it is thrown away: the words that both engines answer in.
//!
//! What always holds: nothing is written to the copy by a check; an answer has counts and codes, and never a value of a row: a database's own error message may quote one, so
//! only its code is kept. What could not be asked is not answered with "no".

/// What came of a question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// It holds.
    Holds(String),
    /// It does not; in what way.
    DoesNot(String),
    /// It is not known; why.
    NotLookedAt(String),
}

/// What the one value says that a statement gave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Said {
    /// True, or one.
    True,
    /// False, or another number.
    False,
    /// Null.
    Null,
    /// A value of another kind.
    Other,
}

/// Whether an assertion holds whose statement gave this: exactly one row of one value, which is true or one.
pub(crate) fn judged(rows: usize, columns: usize, said: Option<Said>) -> Answer {
    let does_not = |why: &str| Answer::DoesNot(why.to_owned());
    match (rows, columns, said) {
        (0, _, _) => does_not("it gave no row"),
        (1, 1, Some(Said::True)) => Answer::Holds(String::new()),
        (1, 1, Some(Said::False)) => does_not("it is not true"),
        (1, 1, Some(Said::Null)) => does_not("it is null"),
        (1, 1, _) => does_not("it is no truth value and no whole number"),
        (1, _, _) => does_not("it gave several columns"),
        _ => does_not("it gave several rows"),
    }
}

/// A table's name as SQL has it, part by part: `public.orders` becomes `"public"."orders"`.
pub(crate) fn quoted(table: &str) -> String {
    let parts: Vec<String> =
        table.split('.').map(|part| format!("\"{}\"", part.replace('"', "\"\""))).collect();
    parts.join(".")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_row_with_one_true_value_holds() {
        assert_eq!(judged(1, 1, Some(Said::True)), Answer::Holds(String::new()));
        for (rows, columns, said) in [
            (0, 1, None),
            (2, 1, Some(Said::True)),
            (1, 2, Some(Said::True)),
            (1, 1, Some(Said::False)),
            (1, 1, Some(Said::Null)),
            (1, 1, Some(Said::Other)),
            (1, 1, None),
        ] {
            assert!(matches!(judged(rows, columns, said), Answer::DoesNot(_)), "{rows} {columns} {said:?}");
        }
    }

    #[test]
    fn a_tables_name_cannot_leave_its_quotes() {
        assert_eq!(quoted("public.orders"), "\"public\".\"orders\"");
        assert_eq!(quoted("a\"; drop table b"), "\"a\"\"; drop table b\"");
    }
}
