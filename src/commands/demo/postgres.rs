//! The demo with PostgreSQL: a cluster of its own, on the machine's own programs, that is reached through a socket in the demo's folder
//! and nowhere else.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Instant;

use farshore_engines::postgres::restore::bin::{self, BinError};
use farshore_engines::postgres::restore::control::Major;
use farshore_engines::postgres::sample::{self, OWNER, SHOP, SampleError, Session};

use super::cast::{Cast, Opened};
use super::moment::Moment;
use super::process::Ending;
use super::stage::Stage;
use super::story::indented;
use super::{LOOK, SOON};
use crate::message::{Code, OperatorMessage, Safe};

const DATA: &str = "primary";
const LOG: &str = "primary.log";
/// The sockets of the cluster and of the copy are files of these numbers: nothing of the network is used.
const PORT: u16 = 5432;
const COPY_PORT: u16 = 5433;
const INITDB: [&str; 9] =
    ["--username", OWNER, "--auth", "trust", "--encoding", "UTF8", "--no-locale", "--no-sync", DATA];
/// The longest path of the demo's folder: a restored copy takes at most 80 letters for the folder of its socket, which is
/// `before/farshore-run` below, and a longer one has it elsewhere.
const LONGEST: usize = 60;

/// It.
pub(super) struct Postgres {
    programs: PathBuf,
    major: Major,
    /// They were named: a restore is told too.
    named: bool,
}

impl Postgres {
    /// With the newest programs there are, or those in a folder that is named.
    ///
    /// # Errors
    /// When there are none.
    pub(super) async fn find(named: Option<&Path>) -> Result<Self, OperatorMessage> {
        let named = named.map(std::path::absolute).transpose().map_err(|why| missing(why.to_string()))?;
        let found = bin::newest(named.as_deref()).await;
        let (programs, major) = found.map_err(|why: BinError| missing(why.to_string()))?;
        if !programs.join("initdb").exists() {
            return Err(missing(format!("{} has `postgres` and no `initdb`", programs.display())));
        }
        Ok(Self { programs, major, named: named.is_some() })
    }

    /// Starts the server and waits until it lets the owner in.
    async fn start(&self, stage: &mut Stage) -> anyhow::Result<()> {
        let program = self.programs.join("postgres");
        let server = stage.start(Some(&program), &["-D", DATA], LOG, Ending::POSTMASTER)?;
        let deadline = Instant::now() + SOON;
        loop {
            let refused = match at(stage.folder().to_owned(), |sockets| {
                Session::open(sockets, PORT, OWNER, OWNER).map(drop)
            })
            .await
            {
                Ok(()) => return Ok(()),
                Err(why) => why,
            };
            if let Some(how) = stage.ended(server) {
                anyhow::bail!("PostgreSQL's server ended: {how}\n{}", stage.said_last(LOG));
            }
            if Instant::now() > deadline {
                anyhow::bail!("PostgreSQL's server lets nobody in: {refused}\n{}", stage.said_last(LOG));
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}

/// No programs.
fn missing(why: String) -> OperatorMessage {
    OperatorMessage::new(
        Code::ProgramsMissing,
        why,
        Safe::Known("nothing was begun".to_owned()),
        "install PostgreSQL's server (Debian: `apt install postgresql`, Red Hat: `dnf install postgresql-server`), or name the folder of \
         `postgres` and `initdb` with --bin-dir; `farshore demo` plays the same with SQLite and needs nothing",
    )
}

/// Something that waits for a server.
async fn at<T: Send + 'static>(
    sockets: PathBuf,
    what: impl FnOnce(&Path) -> Result<T, SampleError> + Send + 'static,
) -> anyhow::Result<T> {
    Ok(tokio::task::spawn_blocking(move || what(&sockets)).await??)
}

/// Refuses a folder in which a socket's path would be too long, or would have to be quoted wherever it stands.
fn check(folder: &Path) -> anyhow::Result<()> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-".contains(c);
    match folder.to_str() {
        Some(text) if text.len() <= LONGEST && text.chars().all(plain) => Ok(()),
        _ => anyhow::bail!(
            "PostgreSQL's sockets cannot be in {}: such a path has at most {LONGEST} letters here, of a-z, A-Z, 0-9 and /._-; set TMPDIR to \
             another folder, as in `TMPDIR=/tmp farshore demo --engine postgres`",
            folder.display()
        ),
    }
}

impl Cast for Postgres {
    const ENGINE: &'static str = "postgres";
    const OPTION: &'static str = " --engine postgres";
    const PROMPT: &'static str = "shop=>";
    const WAY_BACK: &'static str = "The journal has the way back.";
    const SHOWN_BY: &'static str = "with the place in the log where each one ends";
    const RESTORE: &'static [&'static str] = &["--start", "--port", "5433"];
    const CAME_OF_IT: usize = 2;
    const COPY: &'static str = "The copy's server";

    fn configuration(&self) -> Option<(&'static str, String)> {
        let folder = toml::Value::String(self.programs.to_string_lossy().into_owned());
        self.named.then(|| ("engine = \"postgres\"", format!("bin_dir = {folder}")))
    }

    async fn open(&self, stage: &mut Stage) -> anyhow::Result<Opened> {
        check(stage.folder())?;
        let sockets = stage.folder().display().to_string();
        stage.typed(Some(&self.programs.join("initdb")), &INITDB).await?;
        let settings =
            format!("listen_addresses = ''\nunix_socket_directories = '{sockets}'\nport = {PORT}\n");
        let file = stage.folder().join(DATA).join("postgresql.conf");
        let text = std::fs::read_to_string(&file)? + &settings;
        std::fs::write(&file, text)?;
        stage.may_be_served("before");
        self.start(stage).await?;
        at(stage.folder().to_owned(), |sockets| sample::make(sockets, PORT)).await?;
        let typed = format!(
            "   Its programs are those in {}, and its cluster listens in its folder only:\n\n   $ initdb {} > /dev/null\n   \
             $ tail -n {} {DATA}/postgresql.conf\n{}   $ postgres -D {DATA} &\n",
            self.programs.display(),
            INITDB.join(" "),
            settings.lines().count(),
            indented(&settings),
        );
        let what = format!("a PostgreSQL {} of its own, in {sockets}", self.major);
        Ok(Opened { what, typed })
    }

    fn place(&self, stage: &Stage) -> Vec<String> {
        vec![Self::ENGINE.to_owned(), stage.folder().display().to_string(), PORT.to_string()]
    }

    fn init(&self, stage: &Stage) -> Vec<String> {
        let url = format!("postgresql://farshore@/{OWNER}?host={}", stage.folder().display());
        ["--url", &url, "--on-full", "hold"].map(str::to_owned).to_vec()
    }

    async fn apply(&self, stage: &Stage, statements: &[String]) -> anyhow::Result<String> {
        let all = statements.to_vec();
        at(stage.folder().to_owned(), move |sockets| {
            let mut owner = Session::open(sockets, PORT, OWNER, OWNER)?;
            all.iter().try_for_each(|statement| owner.execute(statement))
        })
        .await?;
        let typed = statements.iter().map(|statement| format!("   {OWNER}=# {statement}\n"));
        Ok(format!(
            "   It says what a DBA must do on the server, and that is done:\n\n{}\n",
            typed.collect::<String>()
        ))
    }

    fn follow(&self, _: &mut Stage) -> anyhow::Result<String> {
        Ok(String::new())
    }

    async fn followed(&self, _: &Stage) -> anyhow::Result<String> {
        Ok(String::new())
    }

    async fn standby_has(&self, _: &Stage, _: Range<u64>) -> anyhow::Result<()> {
        Ok(())
    }

    fn found(moment: &Moment) -> String {
        let kib = moment.bytes / 1024;
        format!("From {} to {} the log grew by {kib} KiB, by far the most", moment.before, moment.wrong)
    }

    async fn orders_in_copy(&self, stage: &Stage) -> anyhow::Result<(u64, String)> {
        let sockets = stage.folder().join("before/farshore-run");
        at(sockets, |sockets| sample::orders_in(sockets, COPY_PORT)).await
    }

    fn look(&self, stage: &Stage) -> String {
        let place = stage.folder().display();
        let psql =
            if self.programs.join("psql").exists() { self.programs.join("psql") } else { "psql".into() };
        let psql = psql.display();
        format!(
            "`cd {place}` and type any of these commands.\nThe shop:  {psql} -h {place} -p {PORT} -U {SHOP} {SHOP}\n\
             The copy:  {psql} -h {place}/before/farshore-run -p {COPY_PORT} -U {SHOP} {SHOP}",
        )
    }
}
