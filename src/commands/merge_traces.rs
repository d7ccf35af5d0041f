//! `pacer merge-traces`: the traces of several ranks as one.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use argh::{ArgsInfo, FromArgs};

use super::{Run, out};
use crate::error::{Error, Result};
use crate::profile::folder::Folder;
use crate::profile::merge;
use crate::profile::paths::{check_name, default_root};

/// Merges the traces of several ranks (files ending in -TP-…trace.json.gz) into one that shows
/// all of them on one clock: merged-ID.trace.json.gz.
#[derive(FromArgs, ArgsInfo, Debug, PartialEq)]
#[argh(subcommand, name = "merge-traces")]
pub struct MergeTraces {
    /// folder with the traces (default: PACER_PROFILER_DIR, else SGLANG_TORCH_PROFILER_DIR, else
    /// the system's temporary folder)
    #[argh(option, arg_name = "PATH")]
    pub output_dir: Option<String>,

    /// which capture, if the folder holds several (default: the only one)
    #[argh(option, arg_name = "NAME")]
    pub profile_id: Option<String>,

    /// wait until so many files are there, for ranks that write over shared storage (default 1)
    #[argh(
        option,
        arg_name = "N",
        default = "1",
        from_str_fn(super::values::whole::<1, { 1 << 16 }>)
    )]
    pub expect: usize,

    /// longest wait for them, seconds (default 60)
    #[argh(
        option,
        arg_name = "N",
        default = "60",
        from_str_fn(super::values::whole::<0, 86_400>)
    )]
    pub timeout: usize,

    /// largest merged file, MiB; what is beyond is left out and counted (default 4096)
    #[argh(
        option,
        arg_name = "N",
        default = "4096",
        from_str_fn(super::values::whole::<1, { 1 << 20 }>)
    )]
    pub max_size: usize,
}

impl Run for MergeTraces {
    const NAME: &'static str = "merge-traces";

    fn run(self) -> Result<()> {
        let path = self.output_dir.as_ref().map_or_else(default_root, |p| Path::new(p).into());
        let folder = Arc::new(Folder::open(&path)?);
        let id = match &self.profile_id {
            Some(id) => check_name("--profile-id", id).map(|()| id.clone())?,
            None => only_id(&folder)?,
        };
        let files = self.wait(&folder, &id)?;
        let merged = merge::merge(&folder, &id, &files, (self.max_size as u64) << 20)?;
        files.iter().try_for_each(|f| out::line(format!("merged {f}")))?;
        if merged.left_out > 0 {
            out::note(format_args!("note: {} events left out", merged.left_out));
        }
        out::line(format!(
            "{}: {} events of {} files, {} bytes",
            merged.path.display(),
            merged.events,
            merged.files,
            merged.bytes
        ))
    }
}

impl MergeTraces {
    fn wait(&self, folder: &Folder, id: &str) -> Result<Vec<String>> {
        let until = Instant::now() + Duration::from_secs(self.timeout as u64);
        loop {
            let files = merge::find(folder, id)?;
            if files.len() >= self.expect {
                return Ok(files);
            }
            if Instant::now() >= until || files.is_empty() && self.expect == 1 {
                let what = format!(
                    "{} traces of capture {id} are there, expected {}",
                    files.len(),
                    self.expect
                );
                return Err(Error::file(folder.path(), what));
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

/// The id of the only capture in the folder.
fn only_id(folder: &Folder) -> Result<String> {
    let mut ids: Vec<String> = folder
        .names()?
        .iter()
        .filter(|n| n.ends_with(".trace.json.gz") && !n.starts_with("merged-"))
        .filter_map(|n| n.split_once("-TP-").map(|(head, _)| head))
        // A prefix stands before the id, which holds no hyphen when it was made by the time.
        .map(|head| head.rsplit('-').next().unwrap_or(head).to_owned())
        .collect();
    ids.sort();
    ids.dedup();
    match ids.as_slice() {
        [id] => Ok(id.clone()),
        [] => Err(Error::file(folder.path(), "no files …-TP-…trace.json.gz are in it")),
        several => {
            let what =
                format!("several captures; give --profile-id, one of {}", several.join(", "));
            Err(Error::usage(format!("{}: {what}", folder.path().display())))
        }
    }
}
