//! `farshore init`: asks little, writes a first configuration, and says what the DBA must set up.
//!
//! What always holds: nothing is overwritten; the configuration and the private key are readable by their owner
//! alone; the configuration that is written can be read again by this version. The private keys are written first: a
//! crash between them leaves a key without use, never a configuration whose key is lost.

mod answers;
mod guidance;
mod sqlite;

use std::fs::OpenOptions;
use std::io::{self, IsTerminal, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use age::secrecy::ExposeSecret;
use farshore_journal::format::SigningKey;

use crate::cli::InitArgs;
use crate::commands::Context;
use crate::config;
use crate::exit::Exit;
use crate::message::{Code, OperatorMessage, Safe};

pub use answers::{Answers, Asker, Source};
pub use guidance::{Guidance, KeyFiles, SigningFile, document};

/// Where the private key goes unless told otherwise, beside the configuration.
const IDENTITY_FILE: &str = "farshore-identity.txt";
/// Where the key that signs heads goes unless told otherwise, beside the configuration.
const SIGNING_FILE: &str = "farshore-signing.pem";

/// Runs it.
///
/// # Errors
/// When a file is there already, an answer is missing or of no use, or a file cannot be written.
#[expect(clippy::unused_async, reason = "every verb is awaited alike")]
pub async fn run(context: &mut Context, args: InitArgs) -> anyhow::Result<Exit> {
    let path = context.global.config.clone();
    let folder = path.parent().unwrap_or(Path::new("")).to_owned();
    let identity_path =
        args.encrypt.then(|| args.identity_out.clone().unwrap_or_else(|| folder.join(IDENTITY_FILE)));
    let signing_path = args.signing_key_out.clone().unwrap_or_else(|| folder.join(SIGNING_FILE));
    refuse_existing(&path)?;
    identity_path.as_deref().map_or(Ok(()), refuse_existing)?;
    refuse_existing(&signing_path)?;

    let may_ask = !context.global.no_input && io::stdin().is_terminal();
    let answers = if may_ask {
        Answers::gather(&args, Some(&mut Asker::new(io::stdin().lock(), io::stderr())))?
    } else {
        Answers::gather(&args, None::<&mut Asker<io::Empty, io::Sink>>)?
    };
    let keys = identity_path.map(write_identity).transpose()?;
    let signing = write_signing(signing_path, &folder)?;
    let text = document(&answers, keys.as_ref(), &signing);
    check_document(&path, &folder, &text)?;
    write_new(&path, text.as_bytes())?;

    let guidance = Guidance::of(&answers, &path, keys.as_ref(), &signing);
    context.output.one("farshore.init/1", &guidance, &guidance.to_string())?;
    Ok(Exit::Done)
}

fn refuse_existing(path: &Path) -> Result<(), OperatorMessage> {
    if path.symlink_metadata().is_err() {
        return Ok(());
    }
    Err(exists(path))
}

fn exists(path: &Path) -> OperatorMessage {
    OperatorMessage::new(
        Code::InitExists,
        format!("{} is there already, and init overwrites nothing", path.display()),
        Safe::Known("nothing was written".to_owned()),
        "move it away, or name another file with -c (for private keys: --identity-out, --signing-key-out)",
    )
}

/// What is written must be readable: a fault here is ours, and is found before the file exists.
fn check_document(path: &Path, folder: &Path, text: &str) -> anyhow::Result<()> {
    config::parse(path, folder, text, &config::Environment::new()).map(|_| ()).map_err(Into::into)
}

fn write_identity(path: PathBuf) -> Result<KeyFiles, OperatorMessage> {
    let identity = age::x25519::Identity::generate();
    let recipient = identity.to_public().to_string();
    let text = format!(
        "# farshore private key; public key: {recipient}\n{}\n",
        identity.to_string().expose_secret()
    );
    write_new(&path, text.as_bytes())?;
    Ok(KeyFiles { recipient, identity: path })
}

fn write_signing(path: PathBuf, folder: &Path) -> anyhow::Result<SigningFile> {
    let (key, text) = SigningKey::mint()?;
    write_new(&path, text.as_bytes())?;
    // Relative paths start at the configuration's folder, not at that of whoever runs this.
    let named = match path.strip_prefix(folder) {
        Ok(name) if path.parent() == Some(folder) => name.to_owned(),
        _ => std::path::absolute(&path)?,
    };
    Ok(SigningFile { public: key.public().to_string(), file: path, named })
}

/// Creates a file that only its owner reads, durable on `Ok`.
fn write_new(path: &Path, bytes: &[u8]) -> Result<(), OperatorMessage> {
    let write = || -> io::Result<()> {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        std::fs::File::open(folder)?.sync_all()
    };
    write().map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => exists(path),
        _ => OperatorMessage::new(
            Code::InitWriteFailed,
            format!("{} cannot be written: {error}", path.display()),
            Safe::Known("no other file was changed; this one may be there in part".to_owned()),
            "mend what the system names, remove what is there in part, and run init again",
        ),
    })
}
