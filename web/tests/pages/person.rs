//! Somebody with a browser.

use reqwest::Method;

use crate::rig::{Answer, PASSWORD, Rig};

/// Somebody who has logged in, with his cookie and what his forms repeat.
pub struct Person {
    pub cookie: String,
    pub csrf: String,
}

/// A form as a browser of today sends it from a page of the service.
pub async fn send(rig: &Rig, path: &str, cookie: &str, fields: &[(&str, &str)]) -> Answer {
    let headers = [("cookie", cookie), ("sec-fetch-site", "same-origin")];
    post(rig, path, &headers, fields).await
}

/// A form with these headers.
pub async fn post(rig: &Rig, path: &str, headers: &[(&str, &str)], fields: &[(&str, &str)]) -> Answer {
    let escaped = |text: &str| text.bytes().map(|byte| format!("%{byte:02X}")).collect::<String>();
    let body: Vec<String> = fields.iter().map(|(name, value)| format!("{name}={}", escaped(value))).collect();
    let mut all = vec![("content-type", "application/x-www-form-urlencoded"), ("accept", "text/html")];
    all.extend(headers);
    rig.send(Method::POST, path, &all, &body.join("&")).await
}

/// Logs in by the form; the user is there already.
pub async fn log_in(rig: &Rig, name: &str) -> Person {
    let answer = send(rig, "/login", "", &[("name", name), ("password", PASSWORD)]).await;
    assert_eq!(answer.status, 303, "{answer:?}");
    let cookie = answer.header("set-cookie").split(';').next().unwrap().to_owned();
    let page = get(rig, "/settings", &cookie).await;
    let csrf =
        page.text.split("name=\"csrf\" value=\"").nth(1).unwrap().split('"').next().unwrap().to_owned();
    Person { cookie, csrf }
}

/// A page as a browser asks for it.
pub async fn get(rig: &Rig, path: &str, cookie: &str) -> Answer {
    rig.send(Method::GET, path, &[("accept", "text/html,*/*"), ("cookie", cookie)], "").await
}
