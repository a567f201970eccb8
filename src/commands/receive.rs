//! `farshore receive`: takes other machines' journals into a directory of this one, where no database is shipped.

use std::sync::Arc;

use crate::arrivals::Arrivals;
use crate::commands::Context;
use crate::exit::Exit;
use crate::message::{Code, OperatorMessage, Safe};
use crate::{receiving, serving, wiring};

/// Runs it. Where the configuration has a `[serve]` too, standbys follow what is received.
///
/// # Errors
/// When the configuration has no `[receive]`, or nothing can be received or served as it says.
pub async fn run(context: &mut Context) -> anyhow::Result<Exit> {
    let config = Arc::new(context.config()?);
    if config.receive.is_none() {
        return Err(OperatorMessage::new(
            Code::ReceiveRefused,
            format!("{} has no [receive]", config.path.display()),
            Safe::Known("nothing was begun".to_owned()),
            "say where shippers connect, and who may: docs/receiver.md has an example",
        )
        .into());
    }
    let catalog = match &config.serve {
        None => None,
        Some(_) => {
            let catalog = wiring::unopened_catalog(&config)?;
            if let Err(why) = catalog.renew().await {
                tracing::error!("{}", wiring::catalog_away(&why));
            }
            Some(catalog)
        }
    };
    let cancel = context.cancel.child_token();
    // One that ends at once with a reason ends the other, which is waited for.
    let ends = |ended: Result<(), OperatorMessage>| {
        cancel.cancel();
        ended
    };
    let arrivals = Arrivals::default();
    let receives =
        async { ends(receiving::receive(Arc::clone(&config), arrivals.clone(), cancel.clone()).await) };
    let serves = async {
        match &config.serve {
            None => Ok(()),
            Some(_) => {
                ends(serving::serve(Arc::clone(&config), catalog, arrivals.clone(), cancel.clone()).await)
            }
        }
    };
    let (received, served) = tokio::join!(receives, serves);
    received.and(served)?;
    Ok(Exit::Done)
}
