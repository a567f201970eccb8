//! The web server as a process of its own, and who asks it.
//!
//! `pages serve URL` serves the catalog at `URL` on a free port of loopback until it is killed. Its first line is what a service reads once a second, its second its address.
//! As a service does, it goes on reading once a second: that is part of its CPU.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::Utc;
use farshore_catalog::{Catalog, Options};
use farshore_web::metrics::reading;
use farshore_web::{Health, Here, Objectives, Web};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::fill::{PASSWORD, USER};

/// Serves until it is killed.
pub async fn serve(url: &str) {
    let catalog = Catalog::open(url, Options::default()).await.unwrap();
    let (mut took, before) = (Vec::new(), cpu_of(std::process::id()));
    for _ in 0..10 {
        let began = Instant::now();
        catalog.fleet(Utc::now()).await.unwrap();
        took.push(began.elapsed().as_secs_f64() * 1000.0);
    }
    let cpu = (cpu_of(std::process::id()) - before) * 100.0;
    took.sort_by(f64::total_cmp);
    println!("{:.0} ms (middle of 10), {cpu:.0} ms of this process's CPU", took[5]);
    let promised = Objectives {
        rpo: Some(Duration::from_secs(60)),
        rto: Some(Duration::from_secs(900)),
        ..Objectives::default()
    };
    let databases = catalog.database_list().await.unwrap();
    let promised = databases.into_iter().map(|database| (database.name, promised)).collect();
    let cancel = CancellationToken::new();
    let here = Here { node: "oslo".to_owned(), stop: cancel.clone(), ..Here::default() };
    let web = Web::new(Some(catalog.clone()), promised, here, false, true);
    let mut tasks = JoinSet::new();
    let (metrics, until) = (Arc::clone(&web.metrics), cancel.clone());
    tasks.spawn(async move { reading::keep(metrics, catalog, &|| (), until).await });
    let (_tell, told) = watch::channel(Health { databases: BTreeMap::new() });
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    println!("{}", listener.local_addr().unwrap());
    farshore_web::serve(listener, None, farshore_web::router(web, told), cancel).await.unwrap();
}

/// A server that runs.
pub struct Process {
    child: Child,
    address: String,
    /// What a service reads once a second.
    pub reading: String,
}

impl Process {
    /// Starts one and waits until it says where it is.
    pub fn start(program: &str, url: &str) -> Self {
        let mut command = Command::new(program);
        // As the service has it: all threads share one heap.
        command.args(["serve", url]).env("MALLOC_ARENA_MAX", "1").stdout(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|why| panic!("{program}: {why}"));
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut line = || lines.next().expect("the server says more").unwrap();
        let (reading, address) = (line(), line());
        Self { child, address, reading }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Somebody who has logged in.
pub struct Asker {
    process: Process,
    client: reqwest::Client,
    cookie: String,
}

impl Asker {
    /// Logs in by the form.
    pub async fn log_in(process: Process) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none());
        let client = client.build().unwrap();
        let answer = client
            .post(format!("http://{}/login", process.address))
            .header("content-type", "application/x-www-form-urlencoded")
            .header("sec-fetch-site", "same-origin")
            .body(format!("name={USER}&password={}", PASSWORD.replace(' ', "+")))
            .send()
            .await
            .unwrap();
        assert_eq!(answer.status(), 303, "the login was refused");
        let cookie = answer.headers()["set-cookie"].to_str().unwrap();
        let cookie = cookie.split(';').next().unwrap().to_owned();
        Self { process, client, cookie }
    }

    /// Asks for a page, reads all of it, and gives its size. The page to log in with is asked for by nobody in particular.
    pub async fn get(&self, path: &str, part: bool) -> usize {
        let mut request = self.client.get(format!("http://{}{path}", self.process.address));
        request = request.header("accept", "text/html");
        if path != "/login" {
            request = request.header("cookie", &self.cookie);
        }
        if part {
            request = request.header("hx-request", "true");
        }
        let answer = request.send().await.unwrap();
        let status = answer.status();
        let body = answer.bytes().await.unwrap();
        assert_eq!(status, 200, "{path}: {}", String::from_utf8_lossy(&body));
        body.len()
    }

    /// CPU seconds of the server so far.
    pub fn server_cpu(&self) -> f64 {
        cpu_of(self.process.child.id())
    }
}

/// The fields of a process behind its name. Source: proc(5), `/proc/pid/stat`; times are in hundredths of a second.
fn fields(pid: u32) -> Option<Vec<f64>> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, fields) = text.rsplit_once(") ")?;
    Some(fields.split(' ').map(|field| field.parse().unwrap_or(0.0)).collect())
}

fn cpu_of(pid: u32) -> f64 {
    fields(pid).map_or(0.0, |fields| (fields[11] + fields[12]) / 100.0)
}

/// CPU seconds of a process's children, those included that have ended.
pub fn cpu_below(parent: u32) -> f64 {
    let pids = std::fs::read_dir("/proc").unwrap().flatten();
    let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let living: f64 = pids
        .filter_map(fields)
        .filter(|fields| (fields[1] - f64::from(parent)).abs() < 0.5)
        .map(|fields| (fields[11] + fields[12]) / 100.0)
        .sum();
    let ended = fields(parent).map_or(0.0, |fields| (fields[13] + fields[14]) / 100.0);
    living + ended
}

/// CPU seconds that all of the machine was busy. Source: proc(5), `/proc/stat`: user nice system idle iowait irq softirq.
pub fn machine_busy() -> f64 {
    let text = std::fs::read_to_string("/proc/stat").unwrap();
    let line = text.lines().next().unwrap().split_whitespace().skip(1);
    let fields: Vec<f64> = line.map(|field| field.parse().unwrap()).collect();
    (fields[0] + fields[1] + fields[2] + fields[5] + fields[6]) / 100.0
}
