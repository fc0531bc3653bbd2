//! The macro that makes a library a driver.

/// Exports a [`Reader`](crate::Reader) as an IFD handler: emits the `IFDH...` functions that the resource manager looks up.
///
/// Use it once, in a crate of type `cdylib`, with a type of that crate:
///
/// ```ignore
/// ifd_handler::export_ifd_handler!(MyReader);
/// ```
///
/// It works in a crate with `#![forbid(unsafe_code)]`: the unsafe code that it emits is this crate's, and rustc does not
/// lint what a foreign macro expands to (as with `std::pin::pin!`). That this code is sound depends on nothing the
/// calling crate can write in safe Rust, except a second definition of the same symbols, which the linker refuses.
#[macro_export]
macro_rules! export_ifd_handler {
    ($reader:ty) => {
        const _: () = {
            use ::std::ffi::c_char;
            use $crate::abi;
            use $crate::types::{Dword, ResponseCode, ScardIoHeader, Uchar};

            static TABLE: $crate::Table<$reader> = $crate::Table::new();

            impl abi::Exported for $reader {
                fn table() -> &'static $crate::Table<Self> {
                    &TABLE
                }
            }

            #[unsafe(no_mangle)]
            unsafe extern "C" fn IFDHCreateChannelByName(lun: Dword, device_name: *const c_char) -> ResponseCode {
                // SAFETY: the C caller keeps the contract of the IFD handler API.
                unsafe { abi::create_channel_by_name::<$reader>(lun, device_name) }
            }

            #[unsafe(no_mangle)]
            extern "C" fn IFDHCreateChannel(lun: Dword, channel: Dword) -> ResponseCode {
                abi::create_channel::<$reader>(lun, channel)
            }

            #[unsafe(no_mangle)]
            extern "C" fn IFDHCloseChannel(lun: Dword) -> ResponseCode {
                abi::close_channel::<$reader>(lun)
            }

            #[unsafe(no_mangle)]
            unsafe extern "C" fn IFDHGetCapabilities(
                lun: Dword,
                tag: Dword,
                length: *mut Dword,
                value: *mut Uchar,
            ) -> ResponseCode {
                // SAFETY: the C caller keeps the contract of the IFD handler API.
                unsafe { abi::get_capabilities::<$reader>(lun, tag, length, value) }
            }

            #[unsafe(no_mangle)]
            unsafe extern "C" fn IFDHSetCapabilities(
                lun: Dword,
                tag: Dword,
                length: Dword,
                value: *mut Uchar,
            ) -> ResponseCode {
                // SAFETY: the C caller keeps the contract of the IFD handler API.
                unsafe { abi::set_capabilities::<$reader>(lun, tag, length, value) }
            }

            #[unsafe(no_mangle)]
            extern "C" fn IFDHSetProtocolParameters(
                lun: Dword,
                protocol: Dword,
                _flags: Uchar,
                _pts1: Uchar,
                _pts2: Uchar,
                _pts3: Uchar,
            ) -> ResponseCode {
                abi::set_protocol_parameters::<$reader>(lun, protocol)
            }

            #[unsafe(no_mangle)]
            unsafe extern "C" fn IFDHPowerICC(
                lun: Dword,
                action: Dword,
                atr: *mut Uchar,
                atr_length: *mut Dword,
            ) -> ResponseCode {
                // SAFETY: the C caller keeps the contract of the IFD handler API.
                unsafe { abi::power_icc::<$reader>(lun, action, atr, atr_length) }
            }

            #[unsafe(no_mangle)]
            unsafe extern "C" fn IFDHTransmitToICC(
                lun: Dword,
                send_pci: ScardIoHeader,
                tx: *mut Uchar,
                tx_length: Dword,
                rx: *mut Uchar,
                rx_length: *mut Dword,
                receive_pci: *mut ScardIoHeader,
            ) -> ResponseCode {
                // SAFETY: the C caller keeps the contract of the IFD handler API.
                unsafe { abi::transmit_to_icc::<$reader>(lun, send_pci, (tx, tx_length), (rx, rx_length), receive_pci) }
            }

            #[unsafe(no_mangle)]
            unsafe extern "C" fn IFDHControl(
                lun: Dword,
                code: Dword,
                tx: *mut Uchar,
                tx_length: Dword,
                rx: *mut Uchar,
                rx_length: Dword,
                returned: *mut Dword,
            ) -> ResponseCode {
                // SAFETY: the C caller keeps the contract of the IFD handler API.
                unsafe { abi::control::<$reader>(lun, code, (tx, tx_length), (rx, rx_length), returned) }
            }

            #[unsafe(no_mangle)]
            extern "C" fn IFDHICCPresence(lun: Dword) -> ResponseCode {
                abi::icc_presence::<$reader>(lun)
            }
        };
    };
}
