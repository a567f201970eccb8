//! `farshore serve-journal`: journals for standbys, where no database is shipped.

use std::sync::Arc;

use crate::arrivals::Arrivals;
use crate::commands::Context;
use crate::exit::Exit;
use crate::message::{Code, OperatorMessage, Safe};
use crate::{serving, wiring};

/// Runs it.
///
/// # Errors
/// When the configuration has no `[serve]`, or nothing can be served as it says.
pub async fn run(context: &mut Context) -> anyhow::Result<Exit> {
    let config = Arc::new(context.config()?);
    if config.serve.is_none() {
        return Err(OperatorMessage::new(
            Code::ServeRefused,
            format!("{} has no [serve]", config.path.display()),
            Safe::Known("nothing was begun".to_owned()),
            "say where standbys connect, and who may: docs/standbys.md has an example",
        )
        .into());
    }
    let catalog = wiring::unopened_catalog(&config)?;
    if let Err(why) = catalog.renew().await {
        tracing::error!("{}", wiring::catalog_away(&why));
    }
    serving::serve(config, Some(catalog), Arrivals::default(), context.cancel.clone()).await?;
    Ok(Exit::Done)
}
