//! Certificates of drills in a store: which there are, reading and putting.
//!
//! What always holds: one that is given out decodes and stands under its own drill's name in its own incarnation; whether its signature counts, whoever has the
//! pinned keys asks. Nothing waits for one and no reader of the journal looks at one. Whoever may write to the store can put any object at such a name: none above
//! [`CERTIFICATE_BYTES`] is fetched.
//! What it does not do: it does not sign, and nobody deletes one but with the incarnation's folder.

use bytes::Bytes;

use crate::error::JournalError;
use crate::format::FormatError;
use crate::format::certificate::{CERTIFICATE_BYTES, Certificate};
use crate::identity::DrillId;
use crate::layout::Layout;
use crate::put;
use crate::reader::Reader;
use crate::store::{Listed, ObjectStore, StoreError};

/// Puts a certificate. On `Ok` exactly this one is there, durably. Failures that waiting mends are waited out, `trouble` being told.
///
/// # Errors
/// [`JournalError::Another`] when other bytes have its name; failures of the store that waiting does not mend.
///
/// # Cancel safety
/// Dropped midway, it may or may not stand. If it does, it holds.
pub async fn put(
    store: &dyn ObjectStore,
    certificate: &Certificate,
    trouble: &(dyn Fn(&StoreError) + Send + Sync),
) -> Result<(), JournalError> {
    let bytes =
        certificate.encode().map_err(|source| JournalError::Encode { what: "certificate", source })?;
    let said = certificate.said();
    let layout = Layout::new(&said.database, said.incarnation)?;
    put::put(store, &layout.drill(said.drill)?, &bytes, trouble).await
}

/// The certificates that an incarnation's folder lists. Other names are left out; `verify` reports them.
///
/// # Errors
/// When the store does not answer.
pub async fn list(reader: &Reader) -> Result<Vec<(DrillId, Listed)>, JournalError> {
    let listed = reader.store().list(&reader.layout().drills()?, None, None).await?;
    Ok(listed.into_iter().filter_map(|listed| Some((listed.key.name().parse().ok()?, listed))).collect())
}

/// One certificate, in its place and whole. Its signature was not looked at.
///
/// # Errors
/// [`StoreError::NotFound`] when there is none; [`JournalError::Object`] or [`JournalError::Misplaced`] when it is not what was
/// written there.
pub async fn read(reader: &Reader, drill: DrillId) -> Result<Certificate, JournalError> {
    let key = reader.layout().drill(drill)?;
    let bytes = match reader.store().get_range(&key, 0..CERTIFICATE_BYTES + 1).await {
        Err(StoreError::OutOfRange { .. }) => Bytes::new(),
        other => other?,
    };
    let bad = |source: FormatError| JournalError::Object { key: key.clone(), source };
    let certificate = Certificate::decode(&bytes).map_err(bad)?;
    let said = certificate.said();
    let misplaced = if said.drill != drill {
        Some("drill id")
    } else if said.store != reader.store_id() {
        Some("store id")
    } else if Layout::new(&said.database, said.incarnation)? != *reader.layout() {
        Some("incarnation")
    } else {
        None
    };
    match misplaced {
        Some(field) => Err(JournalError::Misplaced { key, field }),
        None => Ok(certificate),
    }
}
