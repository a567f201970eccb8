//! `farshore backup expire`: expiry by hand or by a timer, or asked of a service.

use farshore_catalog::job::JobKind;

use crate::cli::ExpireArgs;
use crate::cli::zone::Zone;
use crate::commands::{self, Context, job};
use crate::config::Config;
use crate::config::quantity::ByteCount;
use crate::exit::Exit;
use crate::expire::{self, Expired, Expiry, guard};
use crate::jobs::{record, spec};
use crate::output::Row;
use crate::wiring;

impl Row for Expired {
    const HEADER: &'static [&'static str] = &[
        "DATABASE",
        "STORE",
        "INC",
        "KEPT",
        "MARKED",
        "WAITING",
        "DELETED",
        "OBJECTS",
        "FREED",
        "NOTHING GOES BECAUSE",
    ];

    fn cells(&self, _zone: Zone) -> Vec<String> {
        let would = if self.dry_run { " (would be)" } else { "" };
        vec![
            self.database.to_string(),
            self.store.clone(),
            self.incarnation.to_string(),
            self.kept.len().to_string(),
            format!("{} + {} of log{would}", self.marked_backups, self.marked_stretches),
            self.waiting.to_string(),
            format!("{}{would}", self.deleted_backups),
            self.deleted.objects.to_string(),
            ByteCount::new(self.deleted.bytes).to_string(),
            self.refused.clone().or_else(|| self.needs_yes.clone()).unwrap_or_default(),
        ]
    }
}

/// Runs it. Ends with 4 when nothing may go of a database that has a rule.
///
/// # Errors
/// When the catalog or a store does not answer, or the credential may not delete.
pub async fn run(context: &mut Context, config: &Config, args: ExpireArgs) -> anyhow::Result<Exit> {
    farshore_shipper::crash::prepare();
    if args.no_wait {
        return queue(context, config, &args).await;
    }
    let catalog = wiring::catalog(config).await?;
    let mut shown = Vec::new();
    let mut without_rule = Vec::new();
    for (name, settings) in commands::databases(config, args.database.as_ref())? {
        let Some(retention) = &settings.retention else {
            without_rule.push(name.clone());
            continue;
        };
        let expiry = Expiry {
            config,
            catalog: &catalog,
            name,
            settings,
            retention,
            // What the rule asks for is the least.
            grace: args.grace.map(|grace| grace.get().max(retention.grace)),
            own: None,
            yes: context.global.yes,
        };
        // It changes nothing, and is no expiry to anybody who asks how the last one went.
        if args.dry_run {
            expiry.run(&mut shown).await?;
            continue;
        }
        guard::others(&catalog, name, None).await?;
        let asked = spec::asked(JobKind::Expire, Some(name), &spec::Expire {});
        let expiry = Expiry { own: Some(asked.id), ..expiry };
        let held = record::begin(Some(&catalog), asked, &context.cancel).await;
        let begun = shown.len();
        let done = match held.beside(Box::pin(expiry.run(&mut shown))).await {
            Some(done) => done,
            None => {
                held.end_stopped().await;
                return Ok(Exit::Interrupted);
            }
        };
        held.end_done(done.clone().and_then(|()| expire::result(name, &shown[begun..]))).await;
        done?;
    }
    for name in without_rule {
        tracing::warn!(database = %name, "it has no [databases.{name}.retention]: nothing of it is ever deleted");
    }
    context.output.list("farshore.backup_expire/1", &shown)?;
    Ok(if expire::refused(&shown).is_some() { Exit::Refused } else { Exit::Done })
}

/// Leaves it to a service that may delete.
async fn queue(context: &mut Context, config: &Config, args: &ExpireArgs) -> anyhow::Result<Exit> {
    let (name, settings) = commands::database(config, args.database.as_ref())?;
    if settings.retention.is_none() {
        return Err(guard::without_rule(name).into());
    }
    let asked = match args.dry_run {
        true => spec::queued(JobKind::Preview, Some(name), &spec::Preview {}),
        false => spec::queued(JobKind::Expire, Some(name), &spec::Expire {}),
    };
    job::queue(context, config, asked).await
}
