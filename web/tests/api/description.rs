//! The description: checked in, as it is served, true of the answers; and the page to read it.

use std::path::Path;
use std::time::Duration;

use farshore_catalog::access::Role;
use farshore_catalog::compare::{Compare, Verdict};
use farshore_catalog::drill::Drill;
use farshore_journal::IncarnationId;
use farshore_journal::format::certificate::DrillVerdict;
use farshore_web::router::document;
use reqwest::Method;
use serde_json::Value;

use crate::rig::{JOB, Rig, name, time};

#[test]
fn the_description_that_is_checked_in_is_the_one_that_is_served() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("openapi.json");
    let made = document().unwrap() + "\n";
    if std::env::var_os("FARSHORE_UPDATE").is_some() {
        std::fs::write(&path, &made).unwrap();
    }
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        kept == made,
        "web/openapi.json is not what the code says: run this test with FARSHORE_UPDATE=1 and read the difference"
    );
    let doc: Value = serde_json::from_str(&made).unwrap();
    assert_eq!(doc["openapi"], "3.1.0");
    let operations =
        doc["paths"].as_object().unwrap().values().flat_map(|item| item.as_object().unwrap().values());
    let ids: Vec<&str> = operations.filter_map(|operation| operation["operationId"].as_str()).collect();
    let unlike: std::collections::BTreeSet<&str> = ids.iter().copied().collect();
    assert!(ids.len() >= 12 && unlike.len() == ids.len(), "programs are made from these: {ids:?}");
}

const DRILL: &str = "07070707070707070707070707070707";

fn compare() -> Compare {
    let drill = drill();
    Compare {
        id: DRILL.parse().unwrap(),
        database: drill.database,
        standby: "oslo".to_owned(),
        verdict: Verdict::Equal,
        began: drill.began,
        ended: drill.ended,
        statement: "{\"verdict\":\"equal\"}".to_owned(),
    }
}

fn drill() -> Drill {
    Drill {
        id: DRILL.parse().unwrap(),
        database: name("orders"),
        store: "main".to_owned(),
        incarnation: IncarnationId::from_bytes([1; 16]),
        verdict: DrillVerdict::Passed,
        began: time(0),
        ended: time(9),
        recovery: Some(Duration::from_millis(4200)),
        objective: None,
        replayed: None,
        statement: "{\"certificate\":\"farshore.drill-certificate/1\"}".to_owned(),
        signed: None,
        uncertified: Some("no signing_key is configured".to_owned()),
    }
}

/// Where a value is not as a schema says; nothing where it is.
fn differs(doc: &Value, schema: &Value, value: &Value, at: &str) -> Option<String> {
    if let Some(name) = schema["$ref"].as_str() {
        let of = name.rsplit('/').next().unwrap();
        return differs(doc, &doc["components"]["schemas"][of], value, at);
    }
    if let Some(any) = schema["oneOf"].as_array() {
        let all: Vec<Option<String>> = any.iter().map(|one| differs(doc, one, value, at)).collect();
        return if all.iter().any(Option::is_none) { None } else { all.into_iter().flatten().last() };
    }
    let kind = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    let kinds: Vec<&str> = match &schema["type"] {
        Value::String(one) => vec![one],
        Value::Array(several) => several.iter().filter_map(Value::as_str).collect(),
        _ => return Some(format!("{at}: no type in {schema}")),
    };
    if !(kinds.contains(&kind) || (kind == "integer" && kinds.contains(&"number"))) {
        return Some(format!("{at}: {value} is no {kinds:?}"));
    }
    match value {
        Value::Array(items) => {
            items.iter().find_map(|item| differs(doc, &schema["items"], item, &format!("{at}[]")))
        }
        Value::Object(fields) => {
            // What is only called an object may hold anything.
            let known = schema["properties"].as_object()?;
            let required: Vec<&str> =
                schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
            let missing = required.iter().find(|name| !fields.contains_key(**name));
            if let Some(missing) = missing {
                return Some(format!("{at}.{missing} is missing"));
            }
            fields.iter().find_map(|(name, value)| match known.get(name) {
                None => Some(format!("{at}.{name} is not described")),
                Some(schema) => differs(doc, schema, value, &format!("{at}.{name}")),
            })
        }
        _ => None,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_are_as_the_description_says() {
    let rig = Rig::new().await;
    let token = rig.token(Role::Admin, None).await;
    let served = rig.send(Method::GET, "/api/openapi.json", &[], "").await;
    let doc = served.json();
    rig.catalog.drill_put(&drill()).await.unwrap();
    rig.catalog.compare_put(&compare()).await.unwrap();
    let mut seen = 0;
    for (path, item) in doc["paths"].as_object().unwrap() {
        let Some(operation) = item.get("get") else { continue };
        if path.ends_with("/stream") || path.ends_with("/certificate") {
            // What it answers has no end, or is no JSON.
            continue;
        }
        let query = if path.ends_with("/resolve") { "?at=2026-03-29T14:00:12Z" } else { "" };
        let id = if path.contains("/drills/") || path.contains("/compares/") { DRILL } else { JOB };
        let path = path.replace("{name}", "orders").replace("{id}", id);
        let answer = rig.get(&format!("{path}{query}"), &token).await;
        let schema = &operation["responses"]["200"]["content"]["application/json"]["schema"];
        assert_eq!(differs(&doc, schema, &answer.json(), &path), None);
        let refused = rig.send(Method::GET, &path, &[], "").await;
        let schema = &operation["responses"]["401"]["content"]["application/problem+json"]["schema"];
        assert_eq!(differs(&doc, schema, &refused.json(), &path), None);
        seen += 1;
    }
    assert!(seen >= 10, "{seen}");
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_page_brings_all_that_it_needs_from_this_server() {
    let rig = Rig::empty().await;
    let page = rig.send(Method::GET, "/api/docs/", &[], "").await;
    assert!(page.header("content-type").starts_with("text/html"), "{page:?}");
    let mut files = 0;
    for attribute in ["src=\"", "href=\""] {
        for rest in page.text.split(attribute).skip(1) {
            let file = rest.split('"').next().unwrap().trim_start_matches("./");
            assert!(!file.contains("//"), "{file} is fetched from elsewhere");
            let answer = rig.send(Method::GET, &format!("/api/docs/{file}"), &[], "").await;
            assert_eq!(answer.status, 200, "{file}");
            files += 1;
        }
    }
    assert!(files >= 4, "{}", page.text);
    let begin = rig.send(Method::GET, "/api/docs/swagger-initializer.js", &[], "").await;
    assert!(begin.text.contains("/api/openapi.json") && !begin.text.contains("petstore"), "{}", begin.text);
    // A policy that names no script of a page lets none of its own be written into it.
    assert!(!page.text.contains("<script>"), "{}", page.text);
    rig.end().await;
}
