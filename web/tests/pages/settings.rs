//! The settings' forms: who may send them, what they change and write down, and what comes back when they are refused.

use farshore_catalog::access::Role;
use farshore_catalog::token::{Bearer, Token};
use reqwest::Method;

use crate::person::{Person, get, log_in, post, send};
use crate::rig::{Answer, PASSWORD, Rig};

const OTHER: &str = "another horse battery";

/// Sends a form with its session's token.
async fn form(rig: &Rig, person: &Person, path: &str, fields: &[(&str, &str)]) -> Answer {
    let all = [&[("csrf", person.csrf.as_str())], fields].concat();
    send(rig, path, &person.cookie, &all).await
}

/// Whether a name and a password log in.
async fn logs_in(rig: &Rig, name: &str, password: &str) -> bool {
    send(rig, "/login", "", &[("name", name), ("password", password)]).await.status == 303
}

/// Who, what and detail of the newest entries of the record of activity, newest first, without the rig's own.
async fn written(rig: &Rig) -> Vec<(String, String, String)> {
    let all = rig.catalog.activity_list(None, 100).await.unwrap();
    let of_pages = all.into_iter().filter(|one| one.activity.detail.contains("via a page"));
    of_pages.map(|one| (one.activity.who, one.activity.what, one.activity.detail)).collect()
}

async fn tokens(rig: &Rig) -> Vec<Token> {
    rig.catalog.token_list().await.unwrap()
}

/// The secret that a page shows.
fn secret(page: &str) -> Option<&str> {
    page.split("<code id=\"secret\">").nth(1)?.split('<').next()
}

/// The whole element of the field with this id.
fn field<'a>(page: &'a str, id: &str) -> &'a str {
    let at = page.find(&format!("id=\"{id}\"")).unwrap_or_else(|| panic!("no {id}: {page}"));
    let begin = page[..at].rfind('<').unwrap();
    &page[begin..at + page[at..].find('>').unwrap()]
}

/// That a form came back with this said beside this field, and nothing else of it wrong.
#[track_caller]
fn refused(answer: &Answer, id: &str, says: &str) {
    assert_eq!(answer.status, 422, "{answer:?}");
    let field = field(&answer.text, id);
    let said = format!("{id}-problem");
    assert!(
        field.contains("aria-invalid=\"true\"") && field.contains(&format!("aria-describedby=\"{said}\"")),
        "{field}"
    );
    assert_eq!(answer.text.matches("aria-invalid").count(), 1, "{}", answer.text);
    let problem = answer.text.split(&format!("id=\"{said}\">")).nth(1).unwrap().split('<').next().unwrap();
    assert!(problem.contains(says), "{problem}");
}

async fn two_admins() -> (Rig, Person) {
    let rig = Rig::new().await;
    rig.user("ana", Role::Admin).await;
    rig.user("bob", Role::Admin).await;
    let ana = log_in(&rig, "ana").await;
    (rig, ana)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_form_of_the_settings_that_is_not_of_this_session_changes_nothing() {
    let (rig, ana) = two_admins().await;
    let bob = log_in(&rig, "bob").await;
    rig.user("eve", Role::Viewer).await;
    let fields = [
        ("name", "ci"),
        ("role", "admin"),
        ("lasts", "ever"),
        ("password", OTHER),
        ("again", OTHER),
        ("present", PASSWORD),
    ];
    for path in [
        "/settings/tokens",
        "/settings/users",
        "/settings/users/eve/disable",
        "/settings/users/eve/enable",
        "/settings/users/eve/password",
        "/settings/password",
        "/settings/channels/pager/test",
    ] {
        let of_bob = [&[("csrf", bob.csrf.as_str())], &fields[..]].concat();
        for fields in [&fields[..], &of_bob] {
            assert_eq!(send(&rig, path, &ana.cookie, fields).await.status, 403, "{path}");
        }
        let own = [&[("csrf", ana.csrf.as_str())], &fields[..]].concat();
        let elsewhere = [("cookie", ana.cookie.as_str()), ("sec-fetch-site", "cross-site")];
        assert_eq!(post(&rig, path, &elsewhere, &own).await.status, 403, "{path}");
        // An answer that is loaded anew is the page.
        let again = get(&rig, path, &ana.cookie).await;
        assert_eq!((again.status, again.header("location")), (303, "/settings"), "{path}");
    }
    assert_eq!(written(&rig).await, []);
    assert_eq!((tokens(&rig).await.len(), rig.catalog.user_list().await.unwrap().len()), (0, 3));
    assert!(logs_in(&rig, "eve", PASSWORD).await && logs_in(&rig, "ana", PASSWORD).await);
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_made_by_a_page_lets_in_and_its_secret_is_on_that_page_alone() {
    let (rig, ana) = two_admins().await;
    let fields =
        [("name", "ci"), ("role", "operator"), ("database", "orders"), ("lasts", "days"), ("days", "7")];
    let made = form(&rig, &ana, "/settings/tokens", &fields).await;
    assert_eq!((made.status, made.header("location")), (200, ""), "{made:?}");
    assert_eq!(made.header("cache-control"), "no-store");
    let text = secret(&made.text).unwrap().to_owned();
    assert_eq!(made.text.matches(&text).count(), 1);
    let bearer: Bearer = text.parse().unwrap();
    let token = tokens(&rig).await.remove(0);
    assert_eq!((token.id, token.name.as_str(), token.role), (bearer.id, "ci", Role::Operator));
    assert_eq!(token.database.as_ref().map(ToString::to_string).as_deref(), Some("orders"));
    assert_eq!((token.expires_at.unwrap() - token.created_at).num_days(), 7);
    // It may ask, and for its database alone.
    assert_eq!(rig.get("/api/v1/databases/orders", &text).await.status, 200);
    assert_eq!(rig.get("/api/v1/databases/billing", &text).await.status, 404);
    let digits = text.rsplit('_').next().unwrap();
    for path in ["/settings", "/activity"] {
        assert!(!get(&rig, path, &ana.cookie).await.text.contains(digits), "{path}");
    }
    for file in std::fs::read_dir(rig.folder.path()).unwrap() {
        let bytes = std::fs::read(file.unwrap().path()).unwrap();
        assert!(!bytes.windows(digits.len()).any(|part| part == digits.as_bytes()), "the catalog has it");
    }
    // Sent twice, it makes no second one, and says what may have happened.
    let again = form(&rig, &ana, "/settings/tokens", &fields).await;
    refused(&again, "token-name", "revoke it, and make it again");
    assert_eq!(secret(&again.text), None);
    assert!(field(&again.text, "token-name").contains("value=\"ci\""), "{}", again.text);
    assert!(field(&again.text, "token-days").contains("value=\"7\""), "{}", again.text);
    let chosen = [
        "<option value=\"operator\" selected>",
        "<option value=\"orders\" selected>",
        "value=\"days\" checked>",
    ];
    assert!(chosen.iter().all(|one| again.text.contains(one)), "{}", again.text);

    let revoked = form(&rig, &ana, &format!("/settings/tokens/{}/revoke", token.id), &[]).await;
    assert!(revoked.status == 200 && revoked.text.contains("ci lets nobody in any more."), "{revoked:?}");
    assert_eq!(rig.get("/api/v1/databases/orders", &text).await.status, 401);
    for id in [token.id.to_string().as_str(), "0123456789abcdef", "x"] {
        let gone = form(&rig, &ana, &format!("/settings/tokens/{id}/revoke"), &[]).await;
        assert_eq!(gone.status, 404, "{id}: {gone:?}");
    }
    let id = token.id;
    let entry = |what: &str| {
        ("ana".to_owned(), what.to_owned(), format!("ci ({id}), role operator; via a page, by user ana"))
    };
    assert_eq!(written(&rig).await, [entry("token revoke"), entry("token create")]);
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_that_is_not_taken_comes_back_with_what_is_wrong_beside_its_field() {
    let (rig, ana) = two_admins().await;
    let good = [("name", "ci"), ("role", "viewer"), ("database", ""), ("lasts", "30"), ("days", "")];
    for (name, value, id, says) in [
        ("name", "", "token-name", "missing"),
        ("name", "CI <b>", "token-name", "1 to 63 of a-z"),
        ("role", "root", "token-role", "one of the roles"),
        ("database", "none", "token-database", "no database of this name"),
        ("database", "../x", "token-database", "no database of this name"),
        ("days", "12", "token-days", "Choose"),
    ] {
        let fields = good.map(|(of, usual)| if of == name { (of, value) } else { (of, usual) });
        let answer = form(&rig, &ana, "/settings/tokens", &fields).await;
        refused(&answer, id, says);
        assert!(answer.text.contains("id=\"make-token\" open>") && !answer.text.contains("CI <b>"), "{name}");
    }
    let lasting =
        form(&rig, &ana, "/settings/tokens", &[("name", "ci"), ("role", "viewer"), ("lasts", "soon")]).await;
    assert!(lasting.status == 422 && lasting.text.contains("Choose how long"), "{lasting:?}");
    assert_eq!((tokens(&rig).await, written(&rig).await), (vec![], vec![]));
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_is_added_kept_out_let_in_and_given_another_password_each_with_its_entry() {
    let (rig, ana) = two_admins().await;
    let fields = [("name", "eve"), ("role", "operator"), ("password", PASSWORD), ("again", PASSWORD)];
    let added = form(&rig, &ana, "/settings/users", &fields).await;
    assert!(added.status == 200 && added.text.contains("eve may log in now, as operator."), "{added:?}");
    let eve = log_in(&rig, "eve").await;
    refused(&form(&rig, &ana, "/settings/users", &fields).await, "user-name", "a user named eve already");

    let out = form(&rig, &ana, "/settings/users/eve/disable", &[]).await;
    assert!(out.status == 200 && out.text.contains("eve is kept out now"), "{out:?}");
    assert_eq!(get(&rig, "/", &eve.cookie).await.status, 303, "logged out");
    assert!(!logs_in(&rig, "eve", PASSWORD).await);
    let back = form(&rig, &ana, "/settings/users/eve/enable", &[]).await;
    assert_eq!(back.status, 200, "{back:?}");
    assert_eq!(get(&rig, "/", &eve.cookie).await.status, 303, "let in again, not logged in");
    let eve = log_in(&rig, "eve").await;
    let path = "/settings/users/eve/password";
    let given = form(&rig, &ana, path, &[("password", OTHER), ("again", OTHER)]).await;
    assert_eq!(given.status, 200, "{given:?}");
    assert_eq!(get(&rig, "/", &eve.cookie).await.status, 303, "logged out");
    assert!(!logs_in(&rig, "eve", PASSWORD).await && logs_in(&rig, "eve", OTHER).await);
    for verb in ["disable", "enable", "password"] {
        for nobody in ["nobody", "No-Name"] {
            let fields = [("password", OTHER), ("again", OTHER)];
            let answer = form(&rig, &ana, &format!("/settings/users/{nobody}/{verb}"), &fields).await;
            assert_eq!(answer.status, 404, "{verb} {nobody}: {answer:?}");
        }
    }
    let said = ["user password", "user enable", "user disable", "user add"];
    let by = "via a page, by user ana";
    let right = said.map(|what| {
        let detail =
            if what == "user add" { format!("eve, role operator; {by}") } else { format!("eve; {by}") };
        ("ana".to_owned(), what.to_owned(), detail)
    });
    assert_eq!(written(&rig).await, right);
    assert_eq!(rig.catalog.activity_verify().await.unwrap().findings, []);
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_password_is_typed_twice_is_long_enough_and_never_comes_back() {
    let (rig, ana) = two_admins().await;
    for (first, second, field, says) in [
        ("", "", "password", "missing"),
        (OTHER, "", "again", "not the same"),
        (OTHER, "Another horse battery", "again", "not the same"),
        ("hunter2", "hunter2", "password", "at least 12 characters"),
        (&"long".repeat(300), &"long".repeat(300), "password", "at most 1024 bytes"),
    ] {
        let fields = [
            ("name", "eve"),
            ("role", "restorer"),
            ("present", PASSWORD),
            ("password", first),
            ("again", second),
        ];
        for (path, of) in [
            ("/settings/users", "user"),
            ("/settings/users/bob/password", "password-bob"),
            ("/settings/password", "own"),
        ] {
            let answer = form(&rig, &ana, path, &fields).await;
            refused(&answer, &format!("{of}-{field}"), says);
            for typed in [first, second, PASSWORD] {
                assert!(typed.is_empty() || !answer.text.contains(typed), "{path}: it comes back");
            }
            let kept = self::field(&answer.text, "user-name").contains("value=\"eve\"");
            assert_eq!(kept, of == "user", "{path}");
        }
    }
    // Blanks are part of a password.
    let blank = format!(" {OTHER} ");
    let given =
        form(&rig, &ana, "/settings/users/bob/password", &[("password", &blank), ("again", &blank)]).await;
    assert_eq!(given.status, 200, "{given:?}");
    assert!(!logs_in(&rig, "bob", OTHER).await && logs_in(&rig, "bob", &blank).await);
    assert_eq!(rig.catalog.user_list().await.unwrap().len(), 2);
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_keeps_himself_out_and_an_admin_is_left_whatever_is_sent() {
    let (rig, ana) = two_admins().await;
    let page = get(&rig, "/settings", &ana.cookie).await.text;
    assert!(page.contains("/settings/users/bob/disable") && !page.contains("/settings/users/ana/"), "{page}");
    let own = form(&rig, &ana, "/settings/users/ana/disable", &[]).await;
    assert!(own.status == 422 && logs_in(&rig, "ana", PASSWORD).await, "{own:?}");
    // Nor does a session alone, which somebody may have found open, give its user another password.
    let own =
        form(&rig, &ana, "/settings/users/ana/password", &[("password", OTHER), ("again", OTHER)]).await;
    assert!(own.status == 422 && logs_in(&rig, "ana", PASSWORD).await, "{own:?}");
    // Two admins who keep each other out at once.
    let bob = log_in(&rig, "bob").await;
    let (one, other) = tokio::join!(
        form(&rig, &ana, "/settings/users/bob/disable", &[]),
        form(&rig, &bob, "/settings/users/ana/disable", &[]),
    );
    let users = rig.catalog.user_list().await.unwrap();
    assert_eq!(users.iter().filter(|user| !user.disabled).count(), 1, "{one:?} {other:?}");
    assert_eq!([&one, &other].iter().filter(|answer| answer.status == 200).count(), 1, "{one:?} {other:?}");
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ones_own_password_takes_the_present_one_and_ends_ones_other_sessions() {
    let rig = Rig::new().await;
    rig.user("eve", Role::Viewer).await;
    let (here, elsewhere) = (log_in(&rig, "eve").await, log_in(&rig, "eve").await);
    let fields = |present| [("present", present), ("password", OTHER), ("again", OTHER)];
    refused(&form(&rig, &here, "/settings/password", &fields("")).await, "own-present", "missing");
    refused(
        &form(&rig, &here, "/settings/password", &fields(OTHER)).await,
        "own-present",
        "not your present",
    );
    assert!(logs_in(&rig, "eve", PASSWORD).await);
    let done = form(&rig, &here, "/settings/password", &fields(PASSWORD)).await;
    assert!(done.status == 200 && done.text.contains("Your password is changed."), "{done:?}");
    for old in [&here, &elsewhere] {
        assert_eq!(get(&rig, "/", &old.cookie).await.status, 303, "a session of the old password");
    }
    let cookie = done.header("set-cookie").split(';').next().unwrap().to_owned();
    assert!(done.header("set-cookie").contains("HttpOnly; SameSite=Lax"), "{done:?}");
    let csrf =
        done.text.split("name=\"csrf\" value=\"").nth(1).unwrap().split('"').next().unwrap().to_owned();
    // The page that says so goes on: its forms are of the new session.
    let now = Person { cookie, csrf };
    let again = form(
        &rig,
        &now,
        "/settings/password",
        &[("present", OTHER), ("password", PASSWORD), ("again", PASSWORD)],
    )
    .await;
    assert_eq!(again.status, 200, "{again:?}");
    assert!(!logs_in(&rig, "eve", OTHER).await && logs_in(&rig, "eve", PASSWORD).await);
    let entry =
        ("eve".to_owned(), "user password".to_owned(), "eve, his own; via a page, by user eve".to_owned());
    assert_eq!(written(&rig).await, [entry.clone(), entry]);
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn guessing_the_present_password_is_held_up_as_a_login_is() {
    let rig = Rig::new().await;
    rig.user("eve", Role::Viewer).await;
    let eve = log_in(&rig, "eve").await;
    let fields = |present| [("present", present), ("password", OTHER), ("again", OTHER)];
    let mut held = 0;
    for _ in 0..13 {
        let answer = form(&rig, &eve, "/settings/password", &fields("a wrong guess")).await;
        assert!(matches!(answer.status, 422 | 429), "{answer:?}");
        held += usize::from(answer.status == 429);
    }
    assert_eq!(held, 3);
    let right = form(&rig, &eve, "/settings/password", &fields(PASSWORD)).await;
    assert!(right.status == 429 && right.text.contains("try again in"), "{right:?}");
    assert!(!logs_in(&rig, "eve", PASSWORD).await, "logins of the address are held up with it");
    assert_eq!(written(&rig).await, []);
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn channels_are_shown_to_admins_by_name_and_kind_and_a_test_says_what_came_of_it() {
    let (rig, ana) = two_admins().await;
    rig.user("eve", Role::Restorer).await;
    let eve = log_in(&rig, "eve").await;
    assert!(!get(&rig, "/settings", &eve.cookie).await.text.contains("pager"));
    let page = get(&rig, "/settings", &ana.cookie).await.text;
    assert!(
        page.contains("<b>pager</b>") && page.contains("webhook") && !page.contains("hooks.example"),
        "{page}"
    );
    let taken = form(&rig, &ana, "/settings/channels/pager/test", &[]).await;
    assert!(taken.status == 200 && taken.text.contains(">Taken</b> just now"), "{taken:?}");
    let not = form(&rig, &ana, "/settings/channels/dba/test", &[]).await;
    assert!(
        not.status == 200 && not.text.contains("Not taken</b>: it answered 500 &#60;sorry&#62;"),
        "{not:?}"
    );
    assert_eq!(form(&rig, &ana, "/settings/channels/none/test", &[]).await.status, 404);
    let entry =
        |of: &str| ("ana".to_owned(), "notify test".to_owned(), format!("{of}; via a page, by user ana"));
    assert_eq!(written(&rig).await, [entry("dba"), entry("pager")]);
    // It goes on for everybody else while one is waited for, and is not sent twice meanwhile.
    let (first, second) = tokio::join!(form(&rig, &ana, "/settings/channels/slow/test", &[]), async {
        rig.slow_is_asked().await;
        let second = form(&rig, &ana, "/settings/channels/slow/test", &[]).await;
        assert_eq!(rig.send(Method::GET, "/login", &[], "").await.status, 200);
        rig.slow_answers();
        second
    });
    assert!(second.status == 409 && second.text.contains("another test of it is under way"), "{second:?}");
    assert!(first.status == 200 && first.text.contains(">Taken</b> just now"), "{first:?}");
    rig.end().await;
}
