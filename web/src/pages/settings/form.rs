//! A form of the settings that was refused: it comes back with what was typed, and with what is wrong beside each field.
//!
//! What always holds: a password does not come back; nothing was changed.

use farshore_catalog::access::{AccessName, Role};

use crate::pages::visitor::Posted;

/// What a name is.
pub const NAME: &str = "1 to 63 of a-z, 0-9, dot, _ and -, a letter or digit first";

/// A form that was refused; none where it is [`Default`].
#[derive(Debug, Default)]
pub struct Refused {
    form: String,
    typed: Vec<(&'static str, String)>,
    problems: Vec<(&'static str, String)>,
}

impl Refused {
    /// Of this form, with what was typed into these fields: never one with a password.
    pub fn of(form: &str, posted: &Posted, fields: &[&'static str]) -> Self {
        let typed = fields.iter().map(|field| (*field, posted.field(field).unwrap_or_default().to_owned()));
        Self { form: form.to_owned(), typed: typed.collect(), problems: Vec::new() }
    }

    /// Says what is wrong with a field.
    pub fn add(&mut self, field: &'static str, problem: impl Into<String>) {
        self.problems.push((field, problem.into()));
    }

    /// Whether anything is wrong.
    pub fn is_refused(&self) -> bool {
        !self.problems.is_empty()
    }

    /// Whether it is this form.
    pub fn is(&self, form: &str) -> bool {
        self.is_refused() && self.form == form
    }

    /// What was typed into a field of a form; `otherwise` where that form was not refused.
    pub fn value<'a>(&'a self, form: &str, field: &str, otherwise: &'a str) -> &'a str {
        let typed = self.typed.iter().filter(|_| self.is(form)).find(|(of, _)| *of == field);
        typed.map_or(otherwise, |(_, value)| value.as_str())
    }

    /// Whether this was chosen in a field of a form; `otherwise` is chosen where that form was not refused.
    pub fn chose(&self, form: &str, field: &str, otherwise: &str, value: &str) -> bool {
        self.value(form, field, otherwise) == value
    }

    /// What is wrong with a field of a form.
    pub fn problem(&self, form: &str, field: &str) -> Option<&str> {
        let found = self.problems.iter().filter(|_| self.is(form)).find(|(of, _)| *of == field);
        found.map(|(_, problem)| problem.as_str())
    }

    /// Whether a field is the first of a form that something is wrong with: where to go on.
    pub fn is_first(&self, form: &str, field: &str) -> bool {
        self.is(form) && self.problems.first().is_some_and(|(of, _)| *of == field)
    }

    /// The name that was typed.
    pub fn name(&mut self, posted: &Posted) -> Option<AccessName> {
        let typed = posted.field("name").unwrap_or_default();
        let name = typed.parse().ok();
        if name.is_none() {
            match typed.is_empty() {
                true => self.add("name", "A name is missing."),
                false => self.add("name", format!("A name is {NAME}.")),
            }
        }
        name
    }

    /// The role that was chosen.
    pub fn role(&mut self, posted: &Posted) -> Option<Role> {
        let role = posted.field("role").and_then(|word| word.parse().ok());
        if role.is_none() {
            self.add("role", "Choose one of the roles.");
        }
        role
    }

    /// The new password that was typed twice.
    pub fn password<'a>(&mut self, posted: &'a Posted) -> Option<&'a str> {
        let (password, again) = (posted.exact("password"), posted.exact("again"));
        if password.is_empty() {
            self.add("password", "A password is missing.");
        } else if password != again {
            self.add("again", "The two are not the same.");
        }
        (!password.is_empty() && password == again).then_some(password)
    }
}
