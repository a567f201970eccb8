//! Where the service listens: health and the REST API, on loopback, or anywhere with TLS once somebody was given access.
//!
//! What always holds: what cannot listen stops no shipping; it is said, once. An address that others can reach is opened only when TLS
//! can be spoken and a token or a user exists: until then it is looked for again, and nothing listens there.

use std::sync::Arc;
use std::time::Duration;

use chrono::Utc;
use farshore_catalog::Catalog;
use farshore_web::{Health, Here, Metrics, Web, events, tls};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::config::schedule::next_few;
use crate::message::{Code, OperatorMessage, Safe, with_causes};
use crate::notify::testing;
use crate::wiring;

/// How often it is looked whether somebody was given access.
const LOOK: Duration = Duration::from_secs(5);

/// Serves until cancelled.
pub async fn listen(
    config: Arc<Config>,
    catalog: Option<Catalog>,
    health: watch::Receiver<Health>,
    metrics: Arc<Metrics>,
    cancel: CancellationToken,
) {
    let address = config.service.listen;
    let loopback = address.ip().is_loopback();
    let acceptor = match &config.service.tls {
        None => None,
        Some(files) => match tls::load(&files.certificate, &files.key) {
            Ok(acceptor) => Some(acceptor),
            Err(why) => {
                let next = "mend what it says and start `farshore run` again";
                return tracing::error!("{}", refused(&config, &with_causes(&why), next));
            }
        },
    };
    if !loopback && !somebody_may(&config, catalog.as_ref(), &cancel).await {
        return;
    }
    let objectives = metrics.objectives().clone();
    let (node, restore_roots) = (wiring::node(), config.service.restore_roots.clone());
    let channels = testing::channels(&config);
    let here = Here { node, restore_roots, stop: cancel.clone(), channels, due: Some(next_few) };
    let web = Web::measured(catalog, objectives, here, (acceptor.is_some(), loopback), metrics);
    let listener = match TcpListener::bind(address).await {
        Ok(listener) => listener,
        Err(why) => {
            let next = "give `service.listen` an address of this machine that is free, and start `farshore run` again";
            return tracing::error!("{}", refused(&config, &why.to_string(), next));
        }
    };
    let app = farshore_web::router(Arc::clone(&web), health);
    let looking = cancel.child_token();
    let serving = async {
        let served = farshore_web::serve(listener, acceptor, app, cancel).await;
        looking.cancel();
        served
    };
    let (served, ()) = tokio::join!(serving, events::poll(web, looking.clone()));
    if let Err(why) = served {
        tracing::error!("{}", refused(&config, &with_causes(&why), "this is a fault in farshore: report it"));
    }
}

/// Waits until somebody could be let in at all. False when cancelled meanwhile.
async fn somebody_may(config: &Config, catalog: Option<&Catalog>, cancel: &CancellationToken) -> bool {
    let mut said = false;
    loop {
        let given = match catalog {
            Some(catalog) => catalog.access_is_given(Utc::now()).await.map_err(|why| with_causes(&why)),
            None => Err("there is no catalog that could be asked".to_owned()),
        };
        let why = match given {
            Ok(true) => return true,
            Ok(false) => "no token and no user was made yet".to_owned(),
            Err(why) => format!("it is not known who may ask: {why}"),
        };
        if !said {
            said = true;
            let next = "`farshore token create NAME --role viewer`; the service then listens within seconds, by itself";
            tracing::error!("{}", refused(config, &why, next));
        }
        tokio::select! {
            () = cancel.cancelled() => return false,
            () = tokio::time::sleep(LOOK) => {}
        }
    }
}

/// That nothing listens there.
fn refused(config: &Config, why: &str, next: &str) -> OperatorMessage {
    OperatorMessage::new(
        Code::ListenRefused,
        format!("health and the REST API do not listen on {}: {why}", config.service.listen),
        Safe::Known(
            "shipping, base backups and the commands of this machine do not need it and go on".to_owned(),
        ),
        next,
    )
}
