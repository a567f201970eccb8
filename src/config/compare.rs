//! How standbys of a database are compared with it.
//!
//! What always holds: a standby's address names no password: it is a copy, and has the primary's roles; a comparison that a schedule asks for is of a standby whose address is known.

use std::collections::BTreeMap;

use toml::Spanned;

use super::address::DatabaseUrl;
use super::diagnose::ConfigProblem;
use super::quantity::Rate;
use super::{EngineKind, Judge, document};

/// How standbys of a database are compared with it.
#[derive(Debug, Clone, Default)]
pub struct CompareConfig {
    /// Where each can be asked, by the name that `standby list` shows.
    pub standbys: BTreeMap<String, DatabaseUrl>,
    /// The most that is read of each side; `None`: as fast as both are.
    pub rate: Option<Rate>,
    /// Tables that are left out, as `schema.table`.
    pub exclude: Vec<String>,
    /// Whether the keys of rows that differ, which are values of rows, are kept in the catalog and shown to whoever may see the database. Whoever compares by hand sees them anyway.
    pub keys: bool,
}

impl Judge<'_> {
    pub(super) fn compare(
        &self,
        written: Option<&document::Compare>,
        engine: EngineKind,
    ) -> Result<CompareConfig, ConfigProblem> {
        let Some(written) = written else {
            return Ok(CompareConfig::default());
        };
        let mut standbys = BTreeMap::new();
        for (name, url) in &written.standbys {
            if engine != EngineKind::Postgres {
                return Err(self
                    .problem(url.span(), "copies of a SQLite database are not compared in this version")
                    .hint("leave the section out"));
            }
            let parsed = DatabaseUrl::parse(url.get_ref());
            let (parsed, in_url) = parsed.map_err(|why| self.problem(url.span(), why.to_string()))?;
            if in_url.is_some() {
                return Err(self
                    .problem(url.span(), "a standby's address has no password here")
                    .hint("it has the primary's roles: the database's own password is used for both"));
            }
            standbys.insert(name.clone(), parsed);
        }
        let is_table = |text: &Spanned<String>| {
            text.get_ref().split_once('.').is_some_and(|(a, b)| !a.is_empty() && !b.is_empty())
        };
        if let Some(wrong) = written.exclude.iter().find(|text| !is_table(text)) {
            return Err(self
                .problem(wrong.span(), "not a table's name")
                .hint("write schema.table, as in \"public.cache\""));
        }
        Ok(CompareConfig {
            standbys,
            rate: written.rate.as_ref().map(|rate| *rate.get_ref()),
            exclude: written.exclude.iter().map(|text| text.get_ref().clone()).collect(),
            keys: written.keys.unwrap_or(false),
        })
    }
}
