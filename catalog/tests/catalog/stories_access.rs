//! Who may ask: tokens, users and sessions let in while they should, and no longer.

use farshore_catalog::access::{AccessName, Role, Secret};
use farshore_catalog::backup::BackupKey;
use farshore_catalog::database::Database;
use farshore_catalog::token::{Bearer, Token};
use farshore_catalog::user::{PasswordHash, User, user_password_in_txn, user_password_own_in_txn};
use farshore_catalog::{Catalog, Error};

use crate::make::{incarnation, name, orders, time, usable};

fn called(text: &str) -> AccessName {
    text.parse().unwrap()
}

fn token(bearer: &Bearer, called_: &str) -> Token {
    Token {
        id: bearer.id,
        name: called(called_),
        role: Role::Operator,
        database: Some(name("orders")),
        created_at: time(0),
        expires_at: Some(time(100)),
        last_used_at: None,
        revoked_at: None,
    }
}

pub async fn a_token_lets_in_until_it_expires_or_is_revoked_and_nothing_else_does(catalog: Catalog) {
    assert!(!catalog.access_is_given(time(0)).await.unwrap());
    let bearer: Bearer = Bearer::mint().unwrap().text().parse().unwrap();
    let made = token(&bearer, "grafana");
    catalog.token_insert(&made, bearer.secret.digest()).await.unwrap();
    assert!(catalog.access_is_given(time(99)).await.unwrap());
    assert!(!catalog.access_is_given(time(100)).await.unwrap());
    assert_eq!(catalog.token_proved(&bearer, time(99)).await.unwrap(), Some(made.clone()));
    assert_eq!(catalog.token_proved(&bearer, time(100)).await.unwrap(), None);
    // Another secret under this id, and this secret under another id.
    let wrong = Bearer { id: bearer.id, secret: Secret::mint().unwrap() };
    let stray = Bearer { secret: bearer.secret.clone(), ..Bearer::mint().unwrap() };
    for none in [wrong, stray] {
        assert_eq!(catalog.token_proved(&none, time(1)).await.unwrap(), None);
    }
    assert!(matches!(catalog.token_revoke("nobody", time(2)).await, Err(Error::NoToken { .. })));
    let revoked = catalog.token_revoke("grafana", time(2)).await.unwrap();
    assert_eq!(revoked.revoked_at, Some(time(2)));
    assert_eq!(catalog.token_proved(&bearer, time(3)).await.unwrap(), None);
    assert!(matches!(catalog.token_revoke("grafana", time(3)).await, Err(Error::NoToken { .. })));
    assert!(!catalog.access_is_given(time(3)).await.unwrap());
}

pub async fn a_valid_token_keeps_its_name_and_a_revoked_one_frees_it(catalog: Catalog) {
    let (first, second) = (Bearer::mint().unwrap(), Bearer::mint().unwrap());
    catalog.token_insert(&token(&first, "ci"), first.secret.digest()).await.unwrap();
    let again = token(&second, "ci");
    let refused = catalog.token_insert(&again, second.secret.digest()).await;
    assert!(matches!(refused, Err(Error::Conflict { .. })));
    catalog.token_revoke(&first.id.to_string(), time(5)).await.unwrap();
    let forever = Token { expires_at: None, database: None, created_at: time(6), ..again };
    catalog.token_insert(&forever, second.secret.digest()).await.unwrap();
    let all = catalog.token_list().await.unwrap();
    assert_eq!(all.iter().map(|token| token.id).collect::<Vec<_>>(), [second.id, first.id]);
    assert_eq!(all[0], forever);
    assert!(catalog.token_proved(&second, time(1_000_000_000)).await.unwrap().is_some());
}

pub async fn the_last_use_of_a_token_is_kept_to_a_minute(catalog: Catalog) {
    let bearer = Bearer::mint().unwrap();
    let made = Token { expires_at: None, ..token(&bearer, "ci") };
    catalog.token_insert(&made, bearer.secret.digest()).await.unwrap();
    for (at, kept) in [(10, 10), (40, 10), (71, 71)] {
        let known = catalog.token_proved(&bearer, time(at)).await.unwrap().unwrap();
        catalog.token_used(&known, time(at)).await.unwrap();
        let known = catalog.token_list().await.unwrap();
        assert_eq!(known[0].last_used_at, Some(time(kept)), "used at {at}");
    }
}

fn ana() -> (User, PasswordHash) {
    let user = User { name: called("ana"), role: Role::Operator, disabled: false, created_at: time(0) };
    (user, PasswordHash::new("$argon2id$one".to_owned()))
}

pub async fn a_user_who_is_disabled_or_has_another_password_has_no_session_left(catalog: Catalog) {
    let (user, password) = ana();
    catalog.user_insert(&user, &password).await.unwrap();
    assert!(matches!(catalog.user_insert(&user, &password).await, Err(Error::Conflict { .. })));
    assert!(catalog.access_is_given(time(0)).await.unwrap());
    let other = PasswordHash::new("$argon2id$two".to_owned());
    let begin = async |password: &PasswordHash| {
        let secret = Secret::mint().unwrap();
        let begun =
            catalog.session_begin(&user.name, password, secret.digest(), time(0), time(100)).await.unwrap();
        begun.then_some(secret)
    };
    let first = begin(&password).await.unwrap();
    let session = catalog.session_proved(&first, time(99)).await.unwrap().unwrap();
    assert_eq!((session.user, session.expires_at), (user.clone(), time(100)));
    assert_eq!(catalog.session_proved(&first, time(100)).await.unwrap(), None);
    assert_eq!(catalog.session_proved(&Secret::mint().unwrap(), time(1)).await.unwrap(), None);

    catalog.user_password(&user.name, &other).await.unwrap();
    assert_eq!(catalog.session_proved(&first, time(1)).await.unwrap(), None);
    assert!(begin(&password).await.is_none(), "verified with a password that was replaced meanwhile");
    let second = begin(&other).await.unwrap();
    catalog.user_disable(&user.name, true).await.unwrap();
    assert!(!catalog.access_is_given(time(1)).await.unwrap());
    assert!(begin(&other).await.is_none());
    catalog.user_disable(&user.name, false).await.unwrap();
    assert_eq!(catalog.session_proved(&second, time(1)).await.unwrap(), None, "let in again, not logged in");
    let third = begin(&other).await.unwrap();
    catalog.session_end(third.digest()).await.unwrap();
    assert_eq!(catalog.session_proved(&third, time(1)).await.unwrap(), None);

    let (found, kept) = catalog.user_find(&user.name).await.unwrap().unwrap();
    assert_eq!((found, kept.expose()), (user.clone(), other.expose()));
    assert_eq!(catalog.user_list().await.unwrap(), [user]);
    let nobody = called("nobody");
    assert!(catalog.user_find(&nobody).await.unwrap().is_none());
    assert!(matches!(catalog.user_disable(&nobody, true).await, Err(Error::NoUser { .. })));
    assert!(matches!(catalog.user_password(&nobody, &other).await, Err(Error::NoUser { .. })));
}

pub async fn the_last_admin_who_may_log_in_is_not_disabled_also_where_two_disable_each_other(
    catalog: Catalog,
) {
    let password = PasswordHash::new("$argon2id$one".to_owned());
    let user = |name: &str, role| User { name: called(name), role, disabled: false, created_at: time(0) };
    for user in [user("ana", Role::Admin), user("bob", Role::Admin), user("eve", Role::Restorer)] {
        catalog.user_insert(&user, &password).await.unwrap();
    }
    let (ana, bob) = (called("ana"), called("bob"));
    for round in 0..5 {
        let both = tokio::join!(catalog.user_disable(&ana, true), catalog.user_disable(&bob, true));
        // One of them at most; PostgreSQL may call off the other for a deadlock, which changes nothing either.
        let done = [&both.0, &both.1].into_iter().filter(|done| done.is_ok()).count();
        assert!(done <= 1, "{round}: {both:?}");
        let left = catalog.user_list().await.unwrap();
        let admins = left.iter().filter(|user| user.role == Role::Admin && !user.disabled).count();
        assert_eq!(admins, 2 - done, "{round}: {both:?}");
        catalog.user_disable(&ana, false).await.unwrap();
        catalog.user_disable(&bob, false).await.unwrap();
    }
    catalog.user_disable(&ana, true).await.unwrap();
    // Whoever is disabled already stays so without a word; others than admins are no matter.
    catalog.user_disable(&ana, true).await.unwrap();
    catalog.user_disable(&called("eve"), true).await.unwrap();
    let refused = catalog.user_disable(&bob, true).await.unwrap_err();
    assert!(matches!(&refused, Error::LastAdmin { name } if name == "bob"), "{refused:?}");
    assert!(!refused.is_away());
    assert!(!catalog.user_find(&bob).await.unwrap().unwrap().0.disabled);
}

pub async fn a_user_who_shows_his_password_gives_himself_another_unless_he_has_got_one_meanwhile(
    catalog: Catalog,
) {
    let (user, first) = ana();
    catalog.user_insert(&user, &first).await.unwrap();
    let [second, third] = ["two", "three"].map(|text| PasswordHash::new(format!("$argon2id${text}")));
    let secret = Secret::mint().unwrap();
    assert!(catalog.session_begin(&user.name, &first, secret.digest(), time(0), time(100)).await.unwrap());
    let own = async |verified: &PasswordHash, next: &PasswordHash| {
        let mut txn = catalog.begin_local().await.unwrap();
        let done = user_password_own_in_txn(&mut txn, &user.name, verified, next).await.unwrap();
        txn.commit().await.unwrap();
        done
    };
    assert!(!own(&second, &third).await, "what was verified is not his password");
    assert!(catalog.session_proved(&secret, time(1)).await.unwrap().is_some());
    assert!(own(&first, &second).await);
    assert_eq!(catalog.session_proved(&secret, time(1)).await.unwrap(), None);
    assert_eq!(catalog.user_find(&user.name).await.unwrap().unwrap().1.expose(), second.expose());
    catalog.user_disable(&user.name, true).await.unwrap();
    assert!(!own(&second, &third).await, "kept out");
}

pub async fn pages_of_backups_show_each_once_whoever_asks_for_which(catalog: Catalog) {
    let first = orders(&catalog).await;
    let billing = Database { name: name("billing"), engine: "sqlite".to_owned(), added_at: time(0) };
    catalog.database_put(&billing).await.unwrap();
    let other = incarnation(2, "billing");
    catalog.incarnation_put(&other).await.unwrap();
    for (of, id) in [(first, 1), (other.id, 2), (first, 3), (other.id, 4), (first, 5)] {
        let mut backup = usable(of, id, 10, 20);
        // Two began at the same moment: their ids tell them apart.
        backup.started_at = time(i64::from(id / 4));
        catalog.backup_insert(&backup).await.unwrap();
    }
    for (database, all) in [
        (None, &[("billing", 2), ("billing", 4), ("orders", 1), ("orders", 3), ("orders", 5)][..]),
        (Some(name("orders")), &[("orders", 1), ("orders", 3), ("orders", 5)]),
        (Some(name("none")), &[]),
    ] {
        for limit in 1..6 {
            let (mut seen, mut after) = (Vec::new(), None);
            loop {
                let page = catalog.backup_page(database.as_ref(), after.as_ref(), limit).await.unwrap();
                let Some((database, last)) = page.last() else { break };
                after =
                    Some(BackupKey { database: database.clone(), started_at: last.started_at, id: last.id });
                seen.extend(
                    page.iter().map(|(database, backup)| (database.to_string(), backup.id.to_string())),
                );
            }
            let wanted: Vec<_> =
                all.iter().map(|(database, id)| ((*database).to_owned(), hex(*id))).collect();
            assert_eq!(seen, wanted, "{database:?} {limit}");
        }
    }
}

fn hex(id: u8) -> String {
    farshore_journal::BackupId::from_bytes([id; 16]).to_string()
}

/// A login that showed the old password while it is being changed comes before the change, whose sessions end, or behind it, and is none.
pub async fn a_login_beside_a_change_of_the_password_leaves_no_session(catalog: Catalog) {
    let (user, first) = ana();
    catalog.user_insert(&user, &first).await.unwrap();
    let second = PasswordHash::new("$argon2id$two".to_owned());
    let secret = Secret::mint().unwrap();
    let mut txn = catalog.begin_local().await.unwrap();
    user_password_in_txn(&mut txn, &user.name, &second).await.unwrap();
    let beside = catalog.session_begin(&user.name, &first, secret.digest(), time(0), time(100));
    let change = async {
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
        txn.commit().await.unwrap();
    };
    let (begun, ()) = tokio::join!(beside, change);
    assert!(!begun.unwrap(), "the password that was shown is none any more");
    assert_eq!(catalog.session_proved(&secret, time(1)).await.unwrap(), None);
}
