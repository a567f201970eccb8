//! Stores answer, and a bucket asked for is there.

use farshore_testkit::stores::{Azurite, Moto};

#[test]
fn moto_answers_and_ends_with_its_owner() {
    let moto = Moto::start();
    let address = moto.endpoint().replace("http://", "");
    assert_ne!(moto.new_bucket(), moto.bucket());
    assert!(std::net::TcpStream::connect(&address).is_ok());
    drop(moto);
    assert!(std::net::TcpStream::connect(&address).is_err());
}

#[test]
fn azurite_answers_and_ends_with_its_owner() {
    let azurite = Azurite::start();
    let address = azurite.endpoint().replace("http://", "").replace("/devstoreaccount1", "");
    assert_ne!(azurite.new_container(), azurite.container());
    drop(azurite);
    assert!(std::net::TcpStream::connect(&address).is_err());
}

#[test]
fn shared_store_gives_each_test_a_bucket_of_its_own() {
    assert_ne!(Moto::shared().new_bucket(), Moto::shared().new_bucket());
}
