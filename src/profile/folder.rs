//! A folder held open, so that what is done in it cannot be led elsewhere: every name is looked
//! up in the folder itself and no symbolic link is followed (`openat`, `O_NOFOLLOW`).

use std::ffi::CString;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use crate::error::{Error, Kind, Result};

/// A folder and where it was when it was opened.
#[derive(Debug)]
pub struct Folder {
    fd: OwnedFd,
    path: PathBuf,
}

const FOLDER_MODE: libc::mode_t = 0o700;
const FILE_MODE: libc::c_uint = 0o600;

impl Folder {
    /// Opens `path`, which the operator chose: links in it are followed.
    pub fn open(path: &Path) -> Result<Folder> {
        let file = File::open(path).map_err(|e| Error::io(path, &e))?;
        match file.metadata() {
            Ok(m) if m.is_dir() => Ok(Folder { fd: file.into(), path: path.to_owned() }),
            Ok(_) => Err(Error::file(path, "not a folder")),
            Err(e) => Err(Error::io(path, &e)),
        }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The path of a file in it.
    pub fn path_of(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    fn fault(&self, name: &str, error: io::Error) -> Error {
        let path = self.path.join(name);
        let link = matches!(error.raw_os_error(), Some(libc::ELOOP | libc::ENOTDIR));
        match link {
            true => Error::new(Kind::Usage, format!("{} is a link or no folder", path.display())),
            false => Error::io(path, &error),
        }
    }

    fn name(&self, name: &str) -> Result<CString> {
        let inside = !name.is_empty() && name != "." && name != ".." && !name.contains('/');
        let bytes = CString::new(name).ok().filter(|_| inside);
        bytes.ok_or_else(|| Error::usage(format!("{name:?} is not a name of a file")))
    }

    /// The folder `name` in this one, created if it is missing.
    ///
    /// # Errors
    /// `Usage` if it is a link or no folder.
    pub fn enter(&self, name: &str) -> Result<Folder> {
        let bytes = self.name(name)?;
        // SAFETY: the descriptor is open and the name ends with NUL.
        let made = unsafe { libc::mkdirat(self.fd.as_raw_fd(), bytes.as_ptr(), FOLDER_MODE) };
        if made != 0 {
            let error = io::Error::last_os_error();
            if error.kind() != io::ErrorKind::AlreadyExists {
                return Err(self.fault(name, error));
            }
        }
        let flags = libc::O_RDONLY | libc::O_DIRECTORY | libc::O_NOFOLLOW;
        let fd = self.open_at(&bytes, flags).map_err(|e| self.fault(name, e))?;
        Ok(Folder { fd, path: self.path.join(name) })
    }

    fn open_at(&self, name: &CString, flags: libc::c_int) -> io::Result<OwnedFd> {
        let flags = flags | libc::O_CLOEXEC;
        // SAFETY: the descriptor is open and the name ends with NUL.
        let fd = unsafe { libc::openat(self.fd.as_raw_fd(), name.as_ptr(), flags, FILE_MODE) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: `fd` was just opened and belongs to nobody else.
        Ok(unsafe { OwnedFd::from_raw_fd(fd) })
    }

    /// A new file `name`, only for the user to read.
    ///
    /// # Errors
    /// Also if there is something of that name.
    pub fn create(&self, name: &str) -> Result<Draft> {
        self.draft(name, libc::O_WRONLY)
    }

    /// As [`Folder::create`], for a file that is read again.
    pub fn scratch(&self, name: &str) -> Result<Draft> {
        self.draft(name, libc::O_RDWR)
    }

    fn draft(&self, name: &str, way: libc::c_int) -> Result<Draft> {
        let bytes = self.name(name)?;
        let flags = way | libc::O_CREAT | libc::O_EXCL | libc::O_NOFOLLOW;
        #[cfg(test)]
        fuse::burn(&self.path).map_err(|e| self.fault(name, e))?;
        let fd = self.open_at(&bytes, flags).map_err(|e| self.fault(name, e))?;
        let file = File::from(fd);
        Ok(Draft {
            file,
            #[cfg(test)]
            folder: self.path.clone(),
        })
    }

    /// The file `name`, to read; not through a link.
    pub fn read(&self, name: &str) -> Result<File> {
        let bytes = self.name(name)?;
        // A named pipe must not block the reader.
        let flags = libc::O_RDONLY | libc::O_NOFOLLOW | libc::O_NONBLOCK;
        let fd = self.open_at(&bytes, flags).map_err(|e| self.fault(name, e))?;
        Ok(File::from(fd))
    }

    /// Renames the file `from`, replacing what has the name `to`.
    pub fn rename(&self, from: &str, to: &str) -> Result<()> {
        let (old, new, fd) = (self.name(from)?, self.name(to)?, self.fd.as_raw_fd());
        #[cfg(test)]
        fuse::burn(&self.path).map_err(|e| self.fault(to, e))?;
        // SAFETY: the descriptor is open and both names end with NUL.
        let done = unsafe { libc::renameat(fd, old.as_ptr(), fd, new.as_ptr()) };
        if done == 0 { Ok(()) } else { Err(self.fault(to, io::Error::last_os_error())) }
    }

    /// Removes the file `name`; it need not be there.
    pub fn remove(&self, name: &str) {
        if let Ok(name) = self.name(name) {
            // SAFETY: the descriptor is open and the name ends with NUL.
            unsafe { libc::unlinkat(self.fd.as_raw_fd(), name.as_ptr(), 0) };
        }
    }

    /// Whether there is anything called `name`, a dangling link included.
    pub fn has(&self, name: &str) -> bool {
        let Ok(name) = self.name(name) else { return false };
        let mut stat = std::mem::MaybeUninit::<libc::stat>::uninit();
        let (fd, flags) = (self.fd.as_raw_fd(), libc::AT_SYMLINK_NOFOLLOW);
        // SAFETY: the descriptor is open, the name ends with NUL and `stat` may be written to.
        unsafe { libc::fstatat(fd, name.as_ptr(), stat.as_mut_ptr(), flags) == 0 }
    }

    /// Makes renames and removals last.
    pub fn sync(&self) {
        // SAFETY: the descriptor is open. A folder that cannot be synchronised is no loss of data.
        unsafe { libc::fsync(self.fd.as_raw_fd()) };
    }

    /// Names of all files in it.
    pub fn names(&self) -> Result<Vec<String>> {
        let by_descriptor = PathBuf::from(format!("/proc/self/fd/{}", self.fd.as_raw_fd()));
        let path = if by_descriptor.exists() { &by_descriptor } else { &self.path };
        let entries = std::fs::read_dir(path).map_err(|e| Error::io(&self.path, &e))?;
        let mut names: Vec<String> =
            entries.flatten().filter_map(|e| e.file_name().into_string().ok()).collect();
        names.sort();
        Ok(names)
    }
}

/// A file being written.
#[derive(Debug)]
pub struct Draft {
    file: File,
    #[cfg(test)]
    folder: PathBuf,
}

impl Draft {
    /// Brings it to the disk.
    pub fn sync(&self) -> io::Result<()> {
        #[cfg(test)]
        fuse::burn(&self.folder)?;
        self.file.sync_all()
    }

    /// The file itself, to read it again.
    pub fn into_file(self) -> File {
        self.file
    }
}

impl Write for Draft {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        #[cfg(test)]
        fuse::burn(&self.folder)?;
        self.file.write(data)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// For tests: the k-th creation, write, synchronisation or renaming in a folder fails as on a full
/// disk, and so do those after it.
#[cfg(test)]
pub mod fuse {
    use std::io;
    use std::path::{Path, PathBuf};
    use std::sync::{Mutex, MutexGuard, PoisonError};

    /// Where, how many calls are left, and whether one was refused.
    static FUSES: Mutex<Vec<(PathBuf, u64, bool)>> = Mutex::new(Vec::new());

    fn fuses() -> MutexGuard<'static, Vec<(PathBuf, u64, bool)>> {
        FUSES.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets `calls` in the folder at `path` succeed; `None` lets all.
    pub fn set(path: &Path, calls: Option<u64>) {
        let mut fuses = fuses();
        fuses.retain(|f| f.0 != path);
        fuses.extend(calls.map(|calls| (path.to_owned(), calls, false)));
    }

    /// Whether a call was refused at `path`.
    pub fn blown(path: &Path) -> bool {
        fuses().iter().any(|f| f.0 == path && f.2)
    }

    pub fn burn(path: &Path) -> io::Result<()> {
        let mut fuses = fuses();
        let Some(fuse) = fuses.iter_mut().find(|f| f.0 == path) else { return Ok(()) };
        if fuse.1 == 0 {
            fuse.2 = true;
            return Err(io::Error::from_raw_os_error(libc::ENOSPC));
        }
        fuse.1 -= 1;
        Ok(())
    }
}
