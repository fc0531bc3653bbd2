/// A procedure of the host's GATT client that waits for its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// Exchange MTU.
    ExchangeMtu,
    /// One step of the discovery of services and characteristics; a system that knows the handles leaves it out.
    Discover,
    /// Write to the descriptor that switches notifications on.
    Subscribe,
    /// Read, or Read Blob if `offset` is not 0, of `Info`.
    ReadInfo {
        /// Bytes read so far.
        offset: usize,
    },
}

/// An ATT PDU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Att {
    /// Write Command of the host or Handle Value Notification of the phone.
    Value(Vec<u8>),
    /// The host asks.
    Request(Request),
    /// The phone's system answers.
    Response(Request, Vec<u8>),
}

impl Att {
    /// Header of a Write Command, a notification: opcode and handle.
    pub const VALUE_HEADER: usize = 3;
    /// Header of a read's response.
    pub const READ_HEADER: usize = 1;

    /// Bytes of the PDU.
    ///
    /// Spec: Core 5.4, volume 3 part F, section 3.4
    #[must_use]
    pub fn length(&self) -> usize {
        match self {
            Self::Value(value) => Self::VALUE_HEADER + value.len(),
            Self::Request(Request::ExchangeMtu | Request::ReadInfo { offset: 0 }) => 3,
            Self::Request(Request::Discover) => 7,
            Self::Request(Request::Subscribe | Request::ReadInfo { .. }) => 5,
            Self::Response(Request::ExchangeMtu, _) => 3,
            // What a small MTU carries; ours are 128-bit UUIDs, one an answer.
            Self::Response(Request::Discover, _) => 22,
            Self::Response(Request::Subscribe, _) => 1,
            Self::Response(Request::ReadInfo { .. }, value) => Self::READ_HEADER + value.len(),
        }
    }
}
