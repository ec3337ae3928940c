//! Why the site's data is not there.

use cvm_base::Explain;

/// The site's data, or a part of it, is not there.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DataError {
    /// More than one disk says that it is the site's data.
    #[error("the disks {0} all have the serial number user_data, expected one")]
    SeveralDisks(String),
    /// The kernel does not mount it.
    #[error("cannot mount {source_name} at {target}: {problem}")]
    Mount {
        /// The disk or the export.
        source_name: String,
        /// The mount point.
        target: String,
        /// What the kernel said.
        problem: String,
    },
    /// `ext_mount.conf` is not one line `SERVER:/EXPORT`.
    #[error("ext_mount.conf {0}, expected one line SERVER:/EXPORT")]
    Export(&'static str),
    /// The firewall keeps the CVM from the server.
    #[error("ext_mount.conf asks for {server}, and allowed_out_ports lacks the port {port}")]
    ClosedPort {
        /// The server.
        server: String,
        /// The port.
        port: u16,
    },
    /// The server's name has no address.
    #[error("ext_mount.conf names the server {server}, which has no address: {problem}")]
    NoAddress {
        /// The server.
        server: String,
        /// What the resolver said.
        problem: String,
    },
    /// `/user_data/mnt` is not there, or is not a folder.
    #[error("/user_data/mnt is not a folder that something can be mounted on: {0}")]
    NoMountPoint(String),
    /// A file cannot be read.
    #[error(transparent)]
    File(#[from] cvm_base::FileError),
    /// The site's settings cannot be understood.
    #[error(transparent)]
    Settings(#[from] cvm_layout::site_conf::ConfError),
}

impl DataError {
    /// Whether the same may succeed later, because the server or the network is at fault and not
    /// the data.
    pub fn may_pass(&self) -> bool {
        matches!(self, Self::Mount { .. } | Self::NoAddress { .. })
    }
}

impl Explain for DataError {
    fn code(&self) -> &'static str {
        match self {
            Self::SeveralDisks(_) => "DATA-001",
            Self::Mount { .. } => "DATA-002",
            Self::Export(_) => "DATA-003",
            Self::ClosedPort { .. } => "DATA-004",
            Self::NoAddress { .. } => "DATA-005",
            Self::NoMountPoint(_) => "DATA-006",
            Self::File(error) => error.code(),
            Self::Settings(error) => error.code(),
        }
    }

    fn help(&self) -> String {
        match self {
            Self::SeveralDisks(_) => {
                "attach one: launch_vm.sh does so with CVM_USER_DATA=FILE".into()
            }
            Self::Mount { .. } => "a disk needs an ext4 file system and no partitions; a server \
                must offer NFS version 4 over TCP, and answer in time"
                .into(),
            Self::Export(_) => {
                "write for example 10.0.0.5:/srv/data into it, and nothing else".into()
            }
            Self::ClosedPort { port, .. } => format!(
                "add {port} to the cc_config's \
                allowed_out_ports, and provision the site again"
            ),
            Self::NoAddress { .. } => "name an address, or add the name to the cc_config's \
                hosts_entries"
                .into(),
            Self::NoMountPoint(_) => "make an empty folder mnt in the data's file system: the CVM \
                never writes to it"
                .into(),
            Self::File(error) => error.help(),
            Self::Settings(error) => error.help(),
        }
    }
}
