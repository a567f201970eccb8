//! The few questions of `farshore init`, answered by flags or at a terminal.
//!
//! What always holds: every answer is parsed before it is taken; where nothing may be asked, a missing answer is
//! named with its flag; `on_full` has no default, because neither choice is safe for everyone. Of a SQLite database it is not asked:
//! there is nothing to choose yet.

use std::fmt::Display;
use std::io::{BufRead, Read, Write};
use std::path::{Path, PathBuf};

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
    pub source: Source,
    /// Where its journal goes, as it was written.
    pub store: String,
    /// The most that may be lost.
    pub rpo: Span,
    /// The most time to resume.
    pub rto: Span,
}

/// Where a database is, with what only its engine is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A PostgreSQL cluster.
    Postgres {
        /// Where it is.
        url: DatabaseUrl,
        /// Where the role's password is.
        password_file: Option<PathBuf>,
        /// When no more log can be kept.
        on_full: OnFull,
    },
    /// A SQLite database.
    Sqlite {
        /// Its file, from the root on, as text: so it stands in the configuration, whose relative paths start elsewhere.
        path: String,
    },
}

/// What is answered to the first question.
enum Place {
    Url(DatabaseUrl),
    File(String),
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

/// An address begins with its scheme; all else is a file's path.
fn parse_place(text: &str) -> Result<Place, String> {
    match text.contains("://") {
        true => parse_url(text).map(Place::Url),
        false => parse_path(Path::new(text)).map(Place::File),
    }
}

fn parse_path(path: &Path) -> Result<String, String> {
    if path.as_os_str().is_empty() {
        return Err("write postgresql://farshore@HOST/postgres, or the path of a SQLite database".to_owned());
    }
    let whole = std::path::absolute(path).map_err(|why| why.to_string())?;
    whole.to_str().map(str::to_owned).ok_or_else(|| "a path in the configuration is UTF-8 text".to_owned())
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

const PLACE_QUESTION: &str = "The database, as postgresql://farshore@HOST/postgres, or a SQLite database's path, as /var/lib/app/app.db";

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
        let place = match (&args.url, &args.path) {
            (Some(text), _) => Place::Url(parse_url(text).map_err(|why| invalid("--url", &why))?),
            (None, Some(path)) => Place::File(parse_path(path).map_err(|why| invalid("--path", &why))?),
            (None, None) => asked(&mut asker, PLACE_QUESTION, None, parse_place).ok_or_else(|| {
                missing("--url postgresql://farshore@HOST/postgres (or --path FILE, for SQLite)")
            })?,
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
        let source = match place {
            Place::Url(url) => Source::Postgres {
                url,
                password_file: args.password_file.clone(),
                on_full: match args.on_full {
                    Some(choice) => choice,
                    None => asked(&mut asker, ON_FULL_QUESTION, None, parse_on_full)
                        .ok_or_else(|| missing("--on-full hold (or bypass)"))?,
                },
            },
            // With a path as a flag the command line refuses these; here it was typed later.
            Place::File(_) if args.on_full.is_some() => return Err(no_meaning("--on-full")),
            Place::File(_) if args.password_file.is_some() => return Err(no_meaning("--password-file")),
            Place::File(path) => Source::Sqlite { path },
        };
        let rpo = span(args.rpo, &mut asker, "RPO, the most that may be lost", RPO, "--rpo")?;
        let rto = span(args.rto, &mut asker, "RTO, the most time to resume service", RTO, "--rto")?;
        Ok(Self { name, source, store, rpo, rto })
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

fn no_meaning(flag: &str) -> OperatorMessage {
    OperatorMessage::new(
        Code::InitAnswerInvalid,
        format!("{flag} means nothing for a SQLite database"),
        Safe::Known("nothing was written".to_owned()),
        format!("leave {flag} out"),
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
        assert_eq!(answers.name.as_str(), "main");
        assert!(matches!(answers.source, Source::Postgres { on_full: OnFull::Hold, .. }));
        assert_eq!((answers.rpo.to_string(), answers.rto.to_string()), ("5s".to_owned(), "15m".to_owned()));
        assert!(!prompt.contains("Store url"));
    }

    #[test]
    fn a_useless_answer_is_asked_for_again_three_times() {
        let line = "--url postgresql://f@h/d --name a --store file:///s --rpo 1s --rto 1m";
        let (answers, prompt) = at_terminal(line, "maybe\n\nbypass\n");
        assert!(matches!(answers.unwrap().source, Source::Postgres { on_full: OnFull::Bypass, .. }));
        assert_eq!(prompt.matches("write hold or bypass").count(), 2);
        let (answers, _) = at_terminal(line, "a\nb\nc\nhold\n");
        assert_eq!(answers.unwrap_err().code, Code::InitAnswerMissing);
    }

    #[test]
    fn what_is_no_address_is_a_files_path_and_nothing_of_a_servers_is_asked() {
        let (answers, prompt) = at_terminal("--store file:///srv/x", "mysql://h/d\n/srv/app.db\n\n\n\n");
        assert_eq!(answers.unwrap().source, Source::Sqlite { path: "/srv/app.db".to_owned() });
        assert!(!prompt.contains("bypass"), "{prompt}");
        let (answers, _) = at_terminal("--store file:///srv/x --on-full hold", "app.db\n\n\n\n");
        assert_eq!(answers.unwrap_err().code, Code::InitAnswerInvalid);
        // Whoever runs this may stand in another folder than the configuration's.
        let (answers, _) = at_terminal("--path app.db --store file:///srv/x", "\n\n\n");
        let Source::Sqlite { path } = answers.unwrap().source else { panic!("not a file") };
        assert!(path.starts_with('/') && path.ends_with("/app.db"), "{path}");
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
