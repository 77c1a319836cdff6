//! One session with an FTP server: passive, binary, with deadlines on every read.
//!
//! EPSV is tried first, PASV where the server or something on the way does not know it. Of the answer to PASV only the port
//! is used: data connections go to the address of the control connection, whatever the server says. Names are sent and
//! read in the encoding of the source. Server texts that reach a message are cut, stripped of controls and searched for
//! the password.

use std::{
    io::{self, BufRead as _, BufReader, Read as _},
    net::{Shutdown, SocketAddr, TcpStream, ToSocketAddrs as _},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use encoding_rs::Encoding;
use suppaftp::{FtpError, FtpStream, Mode, Status, types::FileType};

use super::{
    listing::{self, Line},
    remote::{Entry, LISTING_ENTRIES_MAX, Remote, RemoteError, Sink, Version},
};
use crate::run::ResolvedConnection;

/// The port of FTP.
const PORT: u16 = 21;
/// Bytes of a listing: the entries allowed, at 300 bytes each.
const LISTING_BYTES_MAX: u64 = 60 << 20;
/// Bytes handed on at a time.
const CHUNK_BYTES: usize = 64 << 10;
/// Characters of a server's text that a message repeats.
const REPLY_CHARS_MAX: usize = 200;
/// Characters from which on a password is searched for; shorter ones occur in texts by chance.
const MASKED_CHARS_MIN: usize = 3;

/// Everything that opening a session needs.
#[derive(Debug, Clone)]
pub(crate) struct Address {
    /// The connection's name.
    pub(crate) connection: String,
    /// Where it leads to.
    pub(crate) to: ResolvedConnection,
    /// The folder that holds the dated folders; the account's own where absent.
    pub(crate) home: Option<String>,
    /// How the server writes names.
    pub(crate) encoding: &'static Encoding,
    /// Silence after which a connection counts as broken.
    pub(crate) timeout: Duration,
    /// What the sessions with this server have found out.
    pub(crate) learned: Arc<Learned>,
}

/// What sessions with a server have found out, shared so that all of them ask in the same way: times of one file that two
/// commands tell do not compare.
#[derive(Debug, Default)]
pub(crate) struct Learned {
    /// A data connection after EPSV could not be made; PASV is used.
    epsv_fails: AtomicBool,
    /// The server does not know MLSD; LIST, SIZE and MDTM are used.
    lacks_mlsd: AtomicBool,
}

/// A session.
pub(crate) struct FtpRemote {
    stream: FtpStream,
    address: Address,
    /// The home as the server calls it, without a slash at its end.
    root: String,
    /// The folder that the session is in.
    folder: Option<String>,
}

/// Converts names between the server's bytes and text.
#[derive(Debug)]
struct Names(&'static Encoding);

impl suppaftp::Encoding for Names {
    fn decode(&self, bytes: &[u8]) -> String {
        self.0.decode_without_bom_handling(bytes).0.into_owned()
    }

    fn encode(&self, text: &str) -> io::Result<Vec<u8>> {
        let (bytes, _, has_unmappable) = self.0.encode(text);
        if has_unmappable {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "a name is not in the encoding of the source",
            ));
        }
        Ok(bytes.into_owned())
    }
}

impl FtpRemote {
    /// Connects, logs in and enters the home folder.
    pub(crate) fn open(address: &Address) -> Result<Self, RemoteError> {
        let socket = connect(address).map_err(|source| RemoteError::Unreachable {
            connection: address.connection.clone(),
            address: format!("{}:{}", address.to.host, address.to.port.unwrap_or(PORT)),
            source,
        })?;
        let stream =
            FtpStream::connect_with_stream(socket).map_err(|error| fault(address, "the greeting", error))?;
        let mut remote = Self {
            stream: with_passive_mode(stream, address),
            address: address.clone(),
            root: String::new(),
            folder: None,
        };
        remote.log_in()?;
        remote.choose_mode()?;
        remote.enter_home()?;
        Ok(remote)
    }

    fn log_in(&mut self) -> Result<(), RemoteError> {
        let to = &self.address.to;
        let user = if to.user.is_empty() { "anonymous" } else { &to.user };
        self.stream.login(user, to.password.expose()).map_err(|error| match error {
            FtpError::UnexpectedResponse(response)
                if matches!(response.status, Status::NotLoggedIn | Status::InvalidCredentials) =>
            {
                let (connection, user) = (self.address.connection.clone(), user.to_owned());
                RemoteError::Login { connection, user, reply: reply(&self.address, &response) }
            }
            other => fault(&self.address, "the login", other),
        })?;
        self.stream.set_encoding(Names(self.address.encoding));
        if self.address.encoding == encoding_rs::UTF_8 {
            // Servers of Windows write names in their own code page until they are told. Others refuse, which is no loss.
            match self
                .stream
                .custom_command("OPTS UTF8 ON", &[Status::CommandOk, Status::CommandNotImplemented])
            {
                Ok(_) | Err(FtpError::UnexpectedResponse(_)) => {}
                Err(error) => return Err(fault(&self.address, "OPTS", error)),
            }
        }
        self.stream.transfer_type(FileType::Binary).map_err(|error| fault(&self.address, "TYPE I", error))
    }

    fn choose_mode(&mut self) -> Result<(), RemoteError> {
        if self.address.learned.epsv_fails.load(Ordering::Relaxed) {
            return Ok(());
        }
        match self.stream.custom_command("EPSV", &[Status::ExtendedPassiveMode]) {
            Ok(_) => self.stream.set_mode(Mode::ExtendedPassive),
            Err(FtpError::UnexpectedResponse(response)) if response.status != Status::NotAvailable => {}
            Err(error) => return Err(fault(&self.address, "EPSV", error)),
        }
        Ok(())
    }

    fn enter_home(&mut self) -> Result<(), RemoteError> {
        if let Some(home) = self.address.home.as_deref().filter(|home| !home.is_empty()) {
            self.stream.cwd(home).map_err(|error| match error {
                FtpError::UnexpectedResponse(response) if response.status == Status::FileUnavailable => {
                    let (connection, home) = (self.address.connection.clone(), home.to_owned());
                    RemoteError::Home { connection, home, reply: reply(&self.address, &response) }
                }
                other => fault(&self.address, "CWD to the home folder", other),
            })?;
        }
        let root = self.stream.pwd().map_err(|error| fault(&self.address, "PWD", error))?;
        self.root = root.trim_end_matches('/').to_owned();
        Ok(())
    }

    /// Enters a folder below the home; tells whether it is there.
    fn enter(&mut self, folder: &str) -> Result<bool, RemoteError> {
        if self.folder.as_deref() == Some(folder) {
            return Ok(true);
        }
        self.folder = None;
        match self.stream.cwd(format!("{}/{folder}", self.root)) {
            Ok(()) => {
                self.folder = Some(folder.to_owned());
                Ok(true)
            }
            Err(FtpError::UnexpectedResponse(response)) if response.status == Status::FileUnavailable => {
                Ok(false)
            }
            Err(error) => Err(fault(&self.address, &format!("CWD {folder}"), error)),
        }
    }

    /// Returns the lines that a listing command gives, or nothing where the server does not know the command.
    fn lines(&mut self, command: &str, folder: &str) -> Result<Option<Vec<String>>, RemoteError> {
        let opened = self.stream.custom_data_command(command, &[Status::AboutToSend, Status::AlreadyOpen]);
        let mut transfer = match opened {
            Ok((_, transfer)) => transfer,
            Err(FtpError::UnexpectedResponse(response)) if is_unknown_command(response.status) => {
                return Ok(None);
            }
            // Some servers say so where a folder is empty; that it is there, CWD has shown.
            Err(FtpError::UnexpectedResponse(response)) if response.status == Status::FileUnavailable => {
                return Ok(Some(Vec::new()));
            }
            Err(error) => return Err(fault(&self.address, command, error)),
        };
        let read = read_lines(&mut transfer, self.address.encoding);
        if matches!(read, Ok(Some(_))) {
            transfer.finish().map_err(|error| fault(&self.address, command, error))?;
        } else {
            self.abandon();
        }
        match read {
            Ok(Some(lines)) => Ok(Some(lines)),
            Ok(None) => Err(RemoteError::Listing { folder: folder.to_owned() }),
            Err(source) => Err(self.broken(command, source)),
        }
    }

    /// Closes the control connection, so that dropping a transfer does not wait for an answer.
    fn abandon(&self) {
        // The session is of no use after this, whether or not the socket could be told.
        let _ = self.stream.get_ref().shutdown(Shutdown::Both);
    }

    fn broken(&self, during: &str, source: io::Error) -> RemoteError {
        RemoteError::Broken { connection: self.address.connection.clone(), during: during.to_owned(), source }
    }

    /// Asks for the facts of one file. They are those of MLSD, so that a version compares with a listed one: the times of
    /// MDTM are not always the same.
    fn ask_facts(&mut self, name: &str) -> Result<Asked, RemoteError> {
        match self.stream.mlst(Some(name)) {
            Ok(line) => Ok(match listing::mlsd(line.trim_start()) {
                Line::File(entry) => Asked::Version(entry.version),
                Line::Other | Line::Unknown => Asked::Untold,
            }),
            Err(FtpError::UnexpectedResponse(response)) if response.status == Status::FileUnavailable => {
                Ok(Asked::Absent)
            }
            Err(FtpError::UnexpectedResponse(response)) if is_unknown_command(response.status) => {
                Ok(Asked::Untold)
            }
            Err(error) => Err(fault(&self.address, "MLST", error)),
        }
    }

    /// Asks for size and time one by one.
    fn ask_version(&mut self, name: &str) -> Result<Asked, RemoteError> {
        let size = match self.stream.size(name) {
            Ok(size) => size as u64,
            Err(FtpError::UnexpectedResponse(response)) if response.status == Status::FileUnavailable => {
                return Ok(Asked::Absent);
            }
            Err(FtpError::UnexpectedResponse(response)) if is_unknown_command(response.status) => {
                return Ok(Asked::Untold);
            }
            Err(error) => return Err(fault(&self.address, "SIZE", error)),
        };
        match self.stream.mdtm(name) {
            Ok(time) => Ok(Asked::Version(Version { size, mtime: time.and_utc().timestamp() })),
            Err(FtpError::UnexpectedResponse(response)) if response.status == Status::FileUnavailable => {
                Ok(Asked::Absent)
            }
            Err(FtpError::UnexpectedResponse(response)) if is_unknown_command(response.status) => {
                Ok(Asked::Untold)
            }
            Err(error) => Err(fault(&self.address, "MDTM", error)),
        }
    }

    fn has_mlsd(&self) -> bool {
        !self.address.learned.lacks_mlsd.load(Ordering::Relaxed)
    }

    /// Returns the files of the folder that the session is in.
    fn entries(&mut self, folder: &str) -> Result<Vec<Entry>, RemoteError> {
        if self.has_mlsd() {
            if let Some(lines) = self.lines("MLSD", folder)? {
                return Ok(files(&lines, listing::mlsd));
            }
            self.address.learned.lacks_mlsd.store(true, Ordering::Relaxed);
        }
        let lines = self.lines("LIST", folder)?.ok_or_else(|| RemoteError::Protocol {
            connection: self.address.connection.clone(),
            during: "LIST".to_owned(),
        })?;
        let mut entries = files(&lines, listing::list);
        for entry in &mut entries {
            match self.ask_version(&entry.name)? {
                Asked::Version(version) => entry.version = version,
                Asked::Absent => {}
                Asked::Untold => break,
            }
        }
        Ok(entries)
    }
}

/// What a server says about one file.
enum Asked {
    Version(Version),
    Absent,
    Untold,
}

impl Remote for FtpRemote {
    fn list(&mut self, folder: &str) -> Result<Option<Vec<Entry>>, RemoteError> {
        if self.enter(folder)? { self.entries(folder).map(Some) } else { Ok(None) }
    }

    fn version(&mut self, folder: &str, name: &str) -> Result<Option<Version>, RemoteError> {
        if !self.enter(folder)? {
            return Ok(None);
        }
        let asked = if self.has_mlsd() { self.ask_facts(name)? } else { self.ask_version(name)? };
        if let Asked::Version(version) = asked {
            return Ok(Some(version));
        }
        // Some servers say "absent" for what they do not want to tell; the listing has the last word.
        let found = self.entries(folder)?.into_iter().find(|entry| entry.name == name);
        Ok(found.map(|entry| entry.version))
    }

    fn read(
        &mut self,
        folder: &str,
        name: &str,
        offset: u64,
        sink: &mut Sink<'_>,
    ) -> Result<(), RemoteError> {
        let during = format!("RETR {name}");
        if !self.enter(folder)? {
            // Reading on would take a file of the same name from the folder that the session is in.
            let connection = self.address.connection.clone();
            let reply = format!("the folder {folder} is gone");
            return Err(RemoteError::Reply {
                connection,
                during,
                code: Status::FileUnavailable.code(),
                reply,
            });
        }
        let offset = usize::try_from(offset).unwrap_or_default();
        self.stream.resume_transfer(offset).map_err(|error| fault(&self.address, "REST", error))?;
        let mut transfer =
            self.stream.retr_as_stream(name).map_err(|error| fault(&self.address, &during, error))?;
        let mut chunk = vec![0; CHUNK_BYTES];
        loop {
            let failure = match transfer.read(&mut chunk) {
                Ok(0) => return transfer.finish().map_err(|error| fault(&self.address, &during, error)),
                Ok(count) => match sink(&chunk[..count]) {
                    Ok(()) => continue,
                    Err(source) => RemoteError::Sink(source),
                },
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(source) => self.broken(&during, source),
            };
            self.abandon();
            return Err(failure);
        }
    }
}

fn connect(address: &Address) -> io::Result<TcpStream> {
    let mut failure = io::Error::new(io::ErrorKind::NotFound, "the host has no address");
    for socket in (address.to.host.as_str(), address.to.port.unwrap_or(PORT)).to_socket_addrs()? {
        match dial(socket, address.timeout) {
            Ok(stream) => return Ok(stream),
            Err(error) => failure = error,
        }
    }
    Err(failure)
}

fn dial(socket: SocketAddr, timeout: Duration) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&socket, timeout)?;
    stream.set_read_timeout(Some(timeout))?;
    stream.set_write_timeout(Some(timeout))?;
    Ok(stream)
}

fn with_passive_mode(stream: FtpStream, address: &Address) -> FtpStream {
    let (timeout, learned) = (address.timeout, Arc::clone(&address.learned));
    let mut stream = stream.passive_stream_builder(move |socket| {
        dial(socket, timeout).map_err(|error| {
            learned.epsv_fails.store(true, Ordering::Relaxed);
            FtpError::ConnectionError(error)
        })
    });
    stream.set_mode(Mode::Passive);
    // The address in the answer to PASV is ignored: a server must not make us connect to somebody else.
    stream.set_passive_nat_workaround(true);
    stream
}

/// Reads lines, or nothing where there are more bytes or lines than a listing may have.
fn read_lines(reader: impl io::Read, encoding: &'static Encoding) -> io::Result<Option<Vec<String>>> {
    let mut reader = BufReader::new(reader.take(LISTING_BYTES_MAX));
    let mut lines = Vec::new();
    loop {
        let mut line = Vec::new();
        if reader.read_until(b'\n', &mut line)? == 0 {
            break;
        }
        let text = encoding.decode_without_bom_handling(&line).0;
        let text = text.trim_end_matches(['\r', '\n']);
        if !text.is_empty() {
            lines.push(text.to_owned());
        }
        if lines.len() > LISTING_ENTRIES_MAX {
            return Ok(None);
        }
    }
    Ok((reader.get_ref().limit() > 0).then_some(lines))
}

fn files(lines: &[String], read: fn(&str) -> Line) -> Vec<Entry> {
    let files = lines.iter().filter_map(|line| match read(line) {
        Line::File(entry) => Some(entry),
        Line::Other | Line::Unknown => None,
    });
    files.collect()
}

const fn is_unknown_command(status: Status) -> bool {
    matches!(
        status,
        Status::BadCommand
            | Status::BadArguments
            | Status::NotImplemented
            | Status::NotImplementedParameter
            | Status::CommandNotImplemented
    )
}

fn fault(address: &Address, during: &str, error: FtpError) -> RemoteError {
    let (connection, during) = (address.connection.clone(), during.to_owned());
    match error {
        FtpError::ConnectionError(source) => RemoteError::Broken { connection, during, source },
        FtpError::UnexpectedResponse(response) => {
            let reply = reply(address, &response);
            let code = if response.status == Status::Unknown {
                leading_code(&reply)
            } else {
                response.status.code()
            };
            RemoteError::Reply { connection, during, code, reply }
        }
        FtpError::BadResponse | FtpError::InvalidAddress(_) | FtpError::DataConnectionAlreadyOpen => {
            RemoteError::Protocol { connection, during }
        }
    }
}

/// The library has no name for some codes; the text begins with the code all the same.
fn leading_code(reply: &str) -> u32 {
    reply.get(..3).and_then(|code| code.parse().ok()).unwrap_or(0)
}

/// Returns a server's text as a message may repeat it.
fn reply(address: &Address, response: &suppaftp::types::Response) -> String {
    let text = address.encoding.decode_without_bom_handling(&response.body).0;
    let password = address.to.password.expose();
    let text = if password.chars().count() >= MASKED_CHARS_MIN {
        text.replace(password, "***")
    } else {
        text.into_owned()
    };
    let text: String =
        text.trim().chars().map(|c| if c.is_control() { ' ' } else { c }).take(REPLY_CHARS_MAX).collect();
    if text.is_empty() { response.status.code().to_string() } else { text }
}
