//! What stands around every page: its head, where one is, who one is, and what is said when the page is not fresh.

use askama::Template;
use axum::http::{HeaderMap, header};
use axum::response::Response;
use chrono::Utc;
use farshore_catalog::access::Role;

use crate::pages::visitor::Visitor;
use crate::pages::{assets, html, render, words};
use crate::problem::{Kind, Problem};

/// The cookie that remembers light or dark. It is no secret.
pub const THEME_COOKIE: &str = "farshore-theme";

/// Light, dark, or as the system has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Theme {
    /// As the system has it.
    System,
    /// Light.
    Light,
    /// Dark.
    Dark,
}

impl Theme {
    /// Its word.
    pub const fn word(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::Light => "light",
            Self::Dark => "dark",
        }
    }

    /// The one that is meant by a word; the system's for any other.
    pub fn from_word(word: &str) -> Self {
        match word {
            "light" => Self::Light,
            "dark" => Self::Dark,
            _ => Self::System,
        }
    }

    /// What a browser was told to remember.
    pub fn of(headers: &HeaderMap) -> Self {
        let lines = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
        let mut pairs = lines.flat_map(|line| line.split(';')).filter_map(|one| one.trim().split_once('='));
        pairs.find(|(name, _)| *name == THEME_COOKIE).map_or(Self::System, |(_, word)| Self::from_word(word))
    }
}

/// Which part of the dashboard a page belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// The databases.
    Fleet,
    /// What commits wait for.
    Protection,
    /// Rehearsed recoveries.
    Drills,
    /// Servers that follow a journal.
    Standbys,
    /// Long work.
    Jobs,
    /// Who did what.
    Activity,
    /// Who may, and when.
    Settings,
    /// None of them.
    None,
}

/// Where one is: each step's address and name.
pub type Trail = Vec<(String, String)>;

/// A page before it is framed.
#[derive(Debug)]
pub struct Page {
    /// Its title.
    pub title: String,
    /// Which part it belongs to.
    pub part: Part,
    /// The way to it.
    pub trail: Trail,
    /// What was done just now, to be said once.
    pub said: Option<String>,
    /// Its content, as a template gave it.
    pub body: String,
}

#[derive(Template)]
#[template(path = "frame.html")]
struct Framed<'a> {
    page: &'a Page,
    who: Option<(&'a str, &'static str)>,
    csrf: &'a str,
    here: &'a str,
    theme: Theme,
    css: &'static str,
    js: &'static str,
    htmx: &'static str,
    icon: &'static str,
    version: &'static str,
    now: String,
    at: i64,
}

impl Framed<'_> {
    fn is(&self, part: Part) -> bool {
        self.page.part == part
    }
}

fn framed(page: &Page, visitor: Option<&Visitor>, theme: Theme) -> Result<Response, Problem> {
    let now = Utc::now();
    let text = render(&Framed {
        page,
        who: visitor.map(|visitor| (visitor.who.name.as_str(), role_word(visitor.who.role))),
        csrf: visitor.map_or("", |visitor| visitor.csrf.as_str()),
        here: visitor.map_or("/", |visitor| visitor.path.as_str()),
        theme,
        css: assets::address("farshore.css"),
        js: assets::address("farshore.js"),
        htmx: assets::address("htmx.js"),
        icon: assets::address("icon.svg"),
        version: env!("CARGO_PKG_VERSION"),
        now: words::full(now),
        at: now.timestamp_millis(),
    })?;
    Ok(html(text))
}

const fn role_word(role: Role) -> &'static str {
    role.word()
}

/// A page for somebody who has logged in.
///
/// # Errors
/// A fault of ours.
pub fn show(page: &Page, visitor: &Visitor) -> Result<Response, Problem> {
    framed(page, Some(visitor), visitor.theme)
}

/// A page for whoever has not.
///
/// # Errors
/// A fault of ours.
pub fn show_open(title: &str, body: String, theme: Theme) -> Result<Response, Problem> {
    let page = Page { title: title.to_owned(), part: Part::None, trail: Vec::new(), said: None, body };
    framed(&page, None, theme)
}

#[derive(Template)]
#[template(path = "refusal.html")]
struct Refusal<'a> {
    title: &'static str,
    detail: &'a str,
    hint: Option<&'a str>,
    code: &'static str,
    trace_id: &'a str,
    away: bool,
}

/// A refusal as a page of its own.
///
/// # Errors
/// A fault of ours.
pub fn refused(theme: Theme, problem: &Problem, trace_id: &str) -> Result<Response, Problem> {
    let body = render(&Refusal {
        title: problem.kind.title(),
        detail: &problem.detail,
        hint: problem.hint.as_deref(),
        code: problem.kind.code(),
        trace_id,
        away: matches!(problem.kind, Kind::CatalogAway | Kind::TimedOut),
    })?;
    show_open(problem.kind.title(), body, theme)
}
