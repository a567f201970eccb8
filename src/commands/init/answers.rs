//! The few questions of `farshore init`, answered by flags or at a terminal.
//!
//! What always holds: every answer is parsed before it is taken; where nothing may be asked, a missing answer is
//! named with its flag; `on_full` has no default, because neither choice is safe for everyone.

use std::fmt::Display;
use std::io::{BufRead, Read, Write};
use std::path::PathBuf;

use farshore_journal::DatabaseName;

use crate::cli::InitArgs;
use crate::config::OnFull;
use crate::config::address::{DatabaseUrl, StoreUrl};
use crate::config::quantity::Span;
use crate::message::{Code, OperatorMessage, Safe};

/// How often a question is put again before init gives up.
const TRIES: usize = 3;
/// The longest answer read, in bytes.
const LONGEST_ANSWER: u64 = 4096;

const NAME: &str = "main";
const RPO: &str = "1s";
const RTO: &str = "15m";

/// What init was told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answers {
    /// The database's name.
    pub name: DatabaseName,
    /// Where it is.
    pub url: DatabaseUrl,
    /// Where the role's password is.
    pub password_file: Option<PathBuf>,
    /// Where its journal goes, as it was written.
    pub store: String,
    /// When no more log can be kept.
    pub on_full: OnFull,
    /// The most that may be lost.
    pub rpo: Span,
    /// The most time to resume.
    pub rto: Span,
}

/// Puts questions to a person.
pub struct Asker<R, W> {
    input: R,
    prompt: W,
}

impl<R: BufRead, W: Write> Asker<R, W> {
    /// Reads answers from `input` and writes questions to `prompt`.
    pub const fn new(input: R, prompt: W) -> Self {
        Self { input, prompt }
    }

    /// One answer that parses; `None` at the end of input or after three tries.
    fn ask<T, E: Display>(
        &mut self,
        question: &str,
        default: Option<&str>,
        parse: impl Fn(&str) -> Result<T, E>,
    ) -> Option<T> {
        for _ in 0..TRIES {
            let shown = default.map_or(String::new(), |default| format!(" [{default}]"));
            write!(self.prompt, "{question}{shown}: ").and_then(|()| self.prompt.flush()).ok()?;
            let mut line = String::new();
            let read = (&mut self.input).take(LONGEST_ANSWER).read_line(&mut line).ok()?;
            if read == 0 {
                return None;
            }
            let answer = match (line.trim(), default) {
                ("", Some(default)) => default,
                (answer, _) => answer,
            };
            match parse(answer) {
                Ok(value) => return Some(value),
                Err(error) => writeln!(self.prompt, "  {error}").ok()?,
            }
        }
        None
    }
}

fn parse_url(text: &str) -> Result<DatabaseUrl, String> {
    match DatabaseUrl::parse(text).map_err(|error| error.to_string())? {
        (url, None) => Ok(url),
        // It would stay in the shell's history and in the process list as well.
        (_, Some(_)) => {
            Err("leave the password out of the url; name a file that holds it instead".to_owned())
        }
    }
}

fn parse_store(text: &str) -> Result<String, String> {
    StoreUrl::parse(text, std::path::Path::new("/"))
        .map(|_| text.to_owned())
        .map_err(|error| error.to_string())
}

fn parse_on_full(text: &str) -> Result<OnFull, &'static str> {
    match text {
        "hold" => Ok(OnFull::Hold),
        "bypass" => Ok(OnFull::Bypass),
        _ => Err("write hold or bypass"),
    }
}

const ON_FULL_QUESTION: &str = "When neither store nor primary can keep more log:
  hold    the primary keeps its log; nothing is lost, and its disk can fill until it stops
  bypass  the primary's disk is saved; the gap is recorded and a new base backup follows
hold or bypass";

impl Answers {
    /// Takes flags first, asks for what is missing if there is someone to ask.
    ///
    /// # Errors
    /// When an answer is missing or of no use.
    pub fn gather<R: BufRead, W: Write>(
        args: &InitArgs,
        mut asker: Option<&mut Asker<R, W>>,
    ) -> Result<Self, OperatorMessage> {
        let url = match &args.url {
            Some(text) => parse_url(text).map_err(|why| invalid("--url", &why))?,
            None => {
                asked(&mut asker, "Database url, as postgresql://farshore@HOST/postgres", None, parse_url)
                    .ok_or_else(|| missing("--url postgresql://farshore@HOST/postgres"))?
            }
        };
        let name = match (&args.name, asker.is_some()) {
            (Some(name), _) => name.clone(),
            (None, _) => asked(&mut asker, "A short name for it", Some(NAME), str::parse::<DatabaseName>)
                .map_or_else(|| NAME.parse::<DatabaseName>(), Ok)
                .map_err(|error| invalid("--name", &error.to_string()))?,
        };
        let store = match &args.store {
            Some(text) => parse_store(text).map_err(|why| invalid("--store", &why))?,
            None => {
                asked(&mut asker, "Store url, as s3://BUCKET/PREFIX or file:///FOLDER", None, parse_store)
                    .ok_or_else(|| missing("--store s3://BUCKET/PREFIX"))?
            }
        };
        let on_full = match args.on_full {
            Some(choice) => choice,
            None => asked(&mut asker, ON_FULL_QUESTION, None, parse_on_full)
                .ok_or_else(|| missing("--on-full hold (or bypass)"))?,
        };
        let rpo = span(args.rpo, &mut asker, "RPO, the most that may be lost", RPO, "--rpo")?;
        let rto = span(args.rto, &mut asker, "RTO, the most time to resume service", RTO, "--rto")?;
        Ok(Self { name, url, password_file: args.password_file.clone(), store, on_full, rpo, rto })
    }
}

fn asked<R: BufRead, W: Write, T, E: Display>(
    asker: &mut Option<&mut Asker<R, W>>,
    question: &str,
    default: Option<&str>,
    parse: impl Fn(&str) -> Result<T, E>,
) -> Option<T> {
    asker.as_mut().and_then(|asker| asker.ask(question, default, parse))
}

fn span<R: BufRead, W: Write>(
    given: Option<Span>,
    asker: &mut Option<&mut Asker<R, W>>,
    question: &str,
    default: &str,
    flag: &str,
) -> Result<Span, OperatorMessage> {
    match given.or_else(|| asked(asker, question, Some(default), str::parse::<Span>)) {
        Some(span) => Ok(span),
        None => default.parse::<Span>().map_err(|error| invalid(flag, &error.to_string())),
    }
}

fn missing(flag: &str) -> OperatorMessage {
    OperatorMessage::new(
        Code::InitAnswerMissing,
        "init lacks an answer and may not ask, or got none",
        Safe::Known("nothing was written".to_owned()),
        format!("give it as {flag}"),
    )
}

fn invalid(flag: &str, why: &str) -> OperatorMessage {
    OperatorMessage::new(
        Code::InitAnswerInvalid,
        format!("the answer to {flag} is of no use: {why}"),
        Safe::Known("nothing was written".to_owned()),
        format!("give another {flag}"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    fn args(line: &str) -> InitArgs {
        let words = ["farshore", "init"].into_iter().chain(line.split_whitespace());
        match crate::cli::Cli::try_parse_from(words).unwrap().command {
            crate::cli::Command::Init(args) => args,
            _ => unreachable!("the line begins with init"),
        }
    }

    fn at_terminal(line: &str, typed: &str) -> (Result<Answers, OperatorMessage>, String) {
        let mut prompt = Vec::new();
        let answers = Answers::gather(&args(line), Some(&mut Asker::new(typed.as_bytes(), &mut prompt)));
        (answers, String::from_utf8(prompt).unwrap())
    }

    #[test]
    fn a_person_is_asked_only_for_what_no_flag_gave() {
        let (answers, prompt) =
            at_terminal("--store file:///srv/x --rpo 5s", "postgresql://f@h/d\n\nhold\n\n");
        let answers = answers.unwrap();
        assert_eq!((answers.name.as_str(), answers.on_full), ("main", OnFull::Hold));
        assert_eq!((answers.rpo.to_string(), answers.rto.to_string()), ("5s".to_owned(), "15m".to_owned()));
        assert!(!prompt.contains("Store url"));
    }

    #[test]
    fn a_useless_answer_is_asked_for_again_three_times() {
        let line = "--url postgresql://f@h/d --name a --store file:///s --rpo 1s --rto 1m";
        let (answers, prompt) = at_terminal(line, "maybe\n\nbypass\n");
        assert_eq!(answers.unwrap().on_full, OnFull::Bypass);
        assert_eq!(prompt.matches("write hold or bypass").count(), 2);
        let (answers, _) = at_terminal(line, "a\nb\nc\nhold\n");
        assert_eq!(answers.unwrap_err().code, Code::InitAnswerMissing);
    }

    #[test]
    fn a_password_in_the_url_is_not_taken() {
        let line = "--url postgresql://f:secret@h/d --store file:///s --on-full hold";
        let error =
            Answers::gather(&args(line), None::<&mut Asker<std::io::Empty, std::io::Sink>>).unwrap_err();
        assert_eq!(error.code, Code::InitAnswerInvalid);
        assert!(!error.to_string().contains("secret"));
    }
}
