//! Who may what at a receiver, and who is not heard at all.

use bytes::Bytes;
use farshore_journal::store::{KeyPrefix, StoreError, StoreOptions};
use farshore_testkit::tls::Authority;

use crate::rig::{OTHER, Receiver, SHIPPER};
use crate::{key, runtime};

#[test]
fn a_client_has_nothing_of_anothers_database_and_deletes_only_where_it_may() {
    let receiver = Receiver::new();
    let running = receiver.start();
    let ways = [running.address()];
    let (shipper, other) = (receiver.open(&ways, SHIPPER), receiver.open(&ways, OTHER));
    let nobody = receiver.open(&ways, "nobody.example");
    let (own, foreign) = (key("db/orders/x/1"), key("db/invoices/x/1"));
    let refused = |result: Result<(), StoreError>| {
        assert!(matches!(result, Err(StoreError::Refused { .. })), "{result:?}");
    };
    runtime().block_on(async {
        shipper.create(&own, Bytes::from_static(b"orders")).await.unwrap();
        other.create(&foreign, Bytes::from_static(b"invoices")).await.unwrap();
        shipper.create(&key("farshore.store"), Bytes::from_static(b"record")).await.unwrap();
        refused(shipper.get(&foreign).await.map(drop));
        refused(shipper.size(&foreign).await.map(drop));
        refused(shipper.create(&key("db/invoices/x/2"), Bytes::new()).await.map(drop));
        refused(other.get_range(&own, 0..1).await.map(drop));
        // Also one that is not there is no answer to him.
        refused(other.get(&key("db/orders/x/9")).await.map(drop));
        for root in [KeyPrefix::ROOT, KeyPrefix::new("db").unwrap(), KeyPrefix::new("db/orders").unwrap()] {
            let shown = other.list(&root, None, None).await.unwrap();
            assert!(shown.iter().all(|one| !one.key.as_str().contains("orders")), "{root}: {shown:?}");
        }
        let shown = shipper.list(&KeyPrefix::new("db").unwrap(), None, Some(1)).await.unwrap();
        assert!(shown.len() == 1 && shown[0].key == own, "{shown:?}");
        refused(shipper.delete(&own).await);
        refused(nobody.get(&key("farshore.store")).await.map(drop));
        refused(nobody.list(&KeyPrefix::ROOT, None, None).await.map(drop));
        assert_eq!(shipper.get(&own).await.unwrap(), Bytes::from_static(b"orders"));
    });
    running.stop();
    receiver.allow(true);
    let running = receiver.start();
    let shipper = receiver.open(&[running.address()], SHIPPER);
    runtime().block_on(async {
        shipper.delete(&own).await.unwrap();
        assert!(shipper.get(&own).await.unwrap_err().is_not_found());
        refused(shipper.delete(&foreign).await);
    });
}

#[test]
fn whoever_has_no_certificate_of_the_authority_is_not_heard_and_hears_nobody_else() {
    let receiver = Receiver::new();
    let running = receiver.start();
    let address = running.address();
    let folder = tempfile::tempdir().unwrap();
    let stranger = Authority::new();
    stranger.write(&folder.path().join("ca.crt"));
    stranger.issue(folder.path(), "client", &[SHIPPER]);
    let open = |ca: &std::path::Path, own: &std::path::Path, name: &str| {
        let options = StoreOptions::for_writing()
            .with("tls_ca", ca.display().to_string())
            .with("tls_certificate", own.join(format!("{name}.crt")).display().to_string())
            .with("tls_key", own.join(format!("{name}.key")).display().to_string());
        farshore_journal::store::open(&format!("receiver://{address}"), &options).unwrap()
    };
    let known = receiver.node().folder();
    runtime().block_on(async {
        // Of another authority, by the name of one that may.
        let forged = open(&known.join("ca.crt"), folder.path(), "client");
        let why = forged.get(&key("farshore.store")).await.unwrap_err();
        assert!(matches!(why, StoreError::Unreachable { .. }), "{why:?}");
        // A receiver of another authority is not spoken to.
        let misled = open(&folder.path().join("ca.crt"), known, SHIPPER);
        let why = misled.create(&key("db/orders/x/1"), Bytes::new()).await.unwrap_err();
        assert!(matches!(why, StoreError::Unreachable { ambiguous: false, .. }), "{why:?}");
    });
    let log = receiver.node().log();
    assert!(log.contains("turned away"), "{log}");
}
