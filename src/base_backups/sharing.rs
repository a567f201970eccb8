//! Whether a base backup refers to the blocks that an earlier one holds: what is asked for, what the configuration says, and what the catalog knows against earlier ones.
//!
//! What always holds: nothing is referred to but what is known to be well; while that is not known, nothing is.

use farshore_catalog::Catalog;
use farshore_catalog::backup::Backup;
use farshore_journal::IncarnationId;
use farshore_journal::backup::Sharing;

use crate::config::{Refresh, StoreName};

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// As the configuration says of those that are taken without a gap.
    AsConfigured,
    /// Because a gap or another timeline left none that leads to now.
    AfterGap,
    /// Whatever the configuration says: all bytes are put.
    Full,
    /// Whatever the configuration says, but `never`: what is there is referred to.
    Refresh,
}

impl How {
    /// What an operator said, if anything.
    pub fn said(refresh: Option<bool>) -> Self {
        match refresh {
            None => Self::AsConfigured,
            Some(true) => Self::Refresh,
            Some(false) => Self::Full,
        }
    }

    /// Whether to refer to what is there.
    fn refers(self, configured: Refresh) -> bool {
        match (self, configured) {
            (_, Refresh::Never) | (Self::Full, _) | (Self::AsConfigured, Refresh::AfterGaps) => false,
            (Self::AfterGap | Self::Refresh, _) | (Self::AsConfigured, Refresh::Always) => true,
        }
    }
}

/// What is done with blocks of a base backup into `store`.
pub async fn sharing(
    how: How,
    configured: Refresh,
    catalog: Option<&Catalog>,
    (incarnation, store): (IncarnationId, &StoreName),
) -> Sharing {
    if configured == Refresh::Never {
        return Sharing::None;
    }
    if !how.refers(configured) {
        return Sharing::Full;
    }
    let known = match catalog {
        Some(catalog) => catalog.backup_list(incarnation).await.map_err(|why| why.to_string()),
        None => Err("there is none".to_owned()),
    };
    match known {
        Ok(known) => Sharing::Refresh {
            well: known
                .iter()
                .filter(|one| one.store == store.as_str() && is_well(one))
                .map(|one| one.id)
                .collect(),
        },
        Err(why) => {
            tracing::warn!(error = %why, "the catalog does not say which base backups are well: all blocks are put");
            Sharing::Full
        }
    }
}

/// One that was opened and found right, with no page that was damaged at the primary.
fn is_well(backup: &Backup) -> bool {
    backup.is_usable() && backup.bad_pages == Some(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_goes_before_the_configuration_but_for_never() {
        use Refresh::{AfterGaps, Always, Never};
        for (how, after_gaps, always) in [
            (How::AsConfigured, false, true),
            (How::AfterGap, true, true),
            (How::Full, false, false),
            (How::Refresh, true, true),
        ] {
            assert_eq!(
                [AfterGaps, Always, Never].map(|said| how.refers(said)),
                [after_gaps, always, false],
                "{how:?}"
            );
        }
    }
}
