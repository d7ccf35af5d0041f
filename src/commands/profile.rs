//! `pacer profile`: a live profile of a running server, waited for.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use argh::{ArgsInfo, FromArgs};
use serde_json::{Value, json};

use super::{Run, out};
use crate::error::{Error, Kind, Result};

/// Records a timeline of a running server: starts it, waits until its steps are done, prints where
/// the files are and the top of the tables. The server's /start_profile does the work.
#[derive(FromArgs, ArgsInfo, Debug, PartialEq)]
#[argh(subcommand, name = "profile")]
pub struct Profile {
    /// the server (default http://127.0.0.1:30000)
    #[argh(option, arg_name = "URL", default = "\"http://127.0.0.1:30000\".into()")]
    pub url: String,

    /// key of the server's admin routes (default: PACER_ADMIN_API_KEY, else none)
    #[argh(option, arg_name = "KEY")]
    pub admin_api_key: Option<String>,

    /// folder on the server's machine, under its profile root (default: that root)
    #[argh(option, arg_name = "PATH")]
    pub output_dir: Option<String>,

    /// steps to record; of each stage with --profile-by-stage (default 5)
    #[argh(
        option,
        arg_name = "N",
        default = "5",
        from_str_fn(super::values::whole::<1, { 1 << 40 }>)
    )]
    pub num_steps: usize,

    /// absolute number of the first step (default: the next one)
    #[argh(option, arg_name = "N", from_str_fn(super::values::whole::<0, { 1 << 40 }>))]
    pub start_step: Option<usize>,

    /// steps to let pass first (default: none)
    #[argh(option, arg_name = "N", from_str_fn(super::values::whole::<0, { 1 << 40 }>))]
    pub skip_steps: Option<usize>,

    /// prefill and decode steps in files of their own
    #[argh(switch)]
    pub profile_by_stage: bool,

    /// beginning of the files' names (default: none)
    #[argh(option, arg_name = "NAME")]
    pub profile_prefix: Option<String>,

    /// id in the files' names (default: the time)
    #[argh(option, arg_name = "NAME")]
    pub profile_id: Option<String>,

    /// leave out what the CPU does
    #[argh(switch)]
    pub no_cpu: bool,

    /// leave out what the GPU does
    #[argh(switch)]
    pub no_gpu: bool,

    /// also memory over time
    #[argh(switch)]
    pub mem: bool,

    /// also cuProfilerStart and cuProfilerStop, for nsys
    #[argh(switch)]
    pub cuda_profiler: bool,

    /// merge the files of all ranks
    #[argh(switch)]
    pub merge_profiles: bool,

    /// only stop the recording that is running, and wait for its files
    #[argh(switch)]
    pub stop: bool,

    /// instead, write what happened in the last seconds (default: off)
    #[argh(option, arg_name = "SECONDS", from_str_fn(super::values::whole::<1, 86_400>))]
    pub dump: Option<usize>,

    /// stop and write what there is after so many seconds (default 60)
    #[argh(
        option,
        arg_name = "SECONDS",
        default = "60",
        from_str_fn(super::values::whole::<1, 86_400>)
    )]
    pub timeout: usize,
}

impl Run for Profile {
    const NAME: &'static str = "profile";

    fn run(self) -> Result<()> {
        let server = Server::new(&self.url, self.key())?;
        if self.stop {
            return show(&server.ask("/stop_profile", &json!({}))?);
        }
        if let Some(seconds) = self.dump {
            let mut body = self.places();
            body["last_s"] = json!(seconds);
            return show(&server.ask("/dump_profile", &body)?);
        }
        let started = server.ask("/start_profile", &self.body())?;
        out::note(format_args!("recording: {}", started["steps"]));
        show(&self.wait(&server)?)
    }
}

impl Profile {
    fn key(&self) -> Option<String> {
        let variable = || std::env::var("PACER_ADMIN_API_KEY").ok();
        self.admin_api_key.clone().or_else(variable).filter(|k| !k.is_empty())
    }

    fn places(&self) -> Value {
        json!({
            "output_dir": self.output_dir,
            "profile_prefix": self.profile_prefix,
            "profile_id": self.profile_id,
        })
    }

    fn body(&self) -> Value {
        let named = [
            ("CPU", !self.no_cpu),
            ("GPU", !self.no_gpu),
            ("MEM", self.mem),
            ("CUDA_PROFILER", self.cuda_profiler),
        ];
        let activities: Vec<&str> = named.iter().filter(|n| n.1).map(|n| n.0).collect();
        let mut body = self.places();
        body["num_steps"] = json!(self.num_steps);
        body["start_step"] = json!(self.start_step);
        body["skip_steps"] = json!(self.skip_steps);
        body["activities"] = json!(activities);
        body["profile_by_stage"] = json!(self.profile_by_stage);
        body["merge_profiles"] = json!(self.merge_profiles);
        body
    }

    /// Waits until the window has closed by itself, or stops it.
    fn wait(&self, server: &Server) -> Result<Value> {
        let until = Instant::now() + Duration::from_secs(self.timeout as u64);
        loop {
            let status = server.ask("/profile_status", &json!({}))?;
            if status["state"] == "idle" {
                return Ok(status["last"].clone());
            }
            if Instant::now() >= until {
                out::note(format_args!("note: not all steps came in {} s", self.timeout));
                return server.ask("/stop_profile", &json!({}));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

/// Prints files and tables.
fn show(answer: &Value) -> Result<()> {
    if let Some(message) = answer["error"]["message"].as_str() {
        return Err(Error::new(Kind::Io, message));
    }
    let files = answer["files"].as_array().map(Vec::as_slice).unwrap_or_default();
    if files.is_empty() {
        out::note("no step was recorded, so no file was written");
    }
    for file in files {
        out::line(file.as_str().unwrap_or_default())?;
    }
    if let Some(merged) = answer["merged"].as_str() {
        out::line(merged)?;
    }
    out::line(answer["table"].as_str().unwrap_or_default().trim_end())
}

/// A server to ask, one connection a question.
struct Server {
    address: String,
    key: Option<String>,
}

impl Server {
    fn new(url: &str, key: Option<String>) -> Result<Server> {
        let rest = url.strip_prefix("http://").unwrap_or(url);
        let address = rest.trim_end_matches('/');
        if rest.contains("://") || address.is_empty() || address.contains('/') {
            return Err(Error::usage(format!("--url {url}: expected http://HOST:PORT")));
        }
        let port = address.rsplit_once(':').is_some_and(|(_, p)| p.parse::<u16>().is_ok());
        let address = if port { address.to_owned() } else { format!("{address}:80") };
        Ok(Server { address, key })
    }

    /// Posts `body` and gives the JSON of the answer.
    ///
    /// # Errors
    /// No connection, no HTTP, or a status other than 200, with the server's message.
    fn ask(&self, path: &str, body: &Value) -> Result<Value> {
        let fail = |e: std::io::Error| Error::io(&self.address, &e);
        let mut socket = TcpStream::connect(&self.address).map_err(fail)?;
        socket.set_read_timeout(Some(Duration::from_secs(600))).map_err(fail)?;
        let text = body.to_string();
        let key =
            self.key.as_ref().map_or(String::new(), |k| format!("Authorization: Bearer {k}\r\n"));
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\n{key}\
             Content-Length: {}\r\nConnection: close\r\n\r\n{text}",
            self.address,
            text.len()
        );
        socket.write_all(head.as_bytes()).map_err(fail)?;
        let mut answer = Vec::new();
        socket.take(64 << 20).read_to_end(&mut answer).map_err(fail)?;
        self.read(path, &String::from_utf8_lossy(&answer))
    }

    fn read(&self, path: &str, answer: &str) -> Result<Value> {
        let wrong = |what: &str| Error::new(Kind::Io, format!("{}{path}: {what}", self.address));
        let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(|| wrong("no HTTP answer"))?;
        let status = head.split(' ').nth(1).unwrap_or_default();
        let body: Value = serde_json::from_str(body).unwrap_or(Value::Null);
        match (status, body["error"]["message"].as_str()) {
            ("200", _) => Ok(body),
            (_, Some(message)) => Err(wrong(&format!("{status}: {message}"))),
            (_, None) => Err(wrong(&format!("status {status}"))),
        }
    }
}
