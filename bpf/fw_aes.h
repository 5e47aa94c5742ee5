/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* AES-128 (FIPS 197) of one block, by one table a direction: the kernel's cipher costs a program several times as much,
 * and not every kernel lends it. A table's entries are doubled, so that each rotation is one shift.
 *
 * Tables have timing that depends on keys and data. What is to be kept from here is which server a connection ID
 * names, from people who only see packets pass: they cannot time single blocks. */
#ifndef CB_FW_AES_H
#define CB_FW_AES_H

#include "fw_types.h"

/* S-box and MixColumns of a byte in the first row: (2s, s, s, 3s), twice. */
static const __u64 fw_aes_seal[256] = {
    0xc66363a5c66363a5, 0xf87c7c84f87c7c84, 0xee777799ee777799, 0xf67b7b8df67b7b8d, 0xfff2f20dfff2f20d,
    0xd66b6bbdd66b6bbd, 0xde6f6fb1de6f6fb1, 0x91c5c55491c5c554, 0x6030305060303050, 0x0201010302010103,
    0xce6767a9ce6767a9, 0x562b2b7d562b2b7d, 0xe7fefe19e7fefe19, 0xb5d7d762b5d7d762, 0x4dababe64dababe6,
    0xec76769aec76769a, 0x8fcaca458fcaca45, 0x1f82829d1f82829d, 0x89c9c94089c9c940, 0xfa7d7d87fa7d7d87,
    0xeffafa15effafa15, 0xb25959ebb25959eb, 0x8e4747c98e4747c9, 0xfbf0f00bfbf0f00b, 0x41adadec41adadec,
    0xb3d4d467b3d4d467, 0x5fa2a2fd5fa2a2fd, 0x45afafea45afafea, 0x239c9cbf239c9cbf, 0x53a4a4f753a4a4f7,
    0xe4727296e4727296, 0x9bc0c05b9bc0c05b, 0x75b7b7c275b7b7c2, 0xe1fdfd1ce1fdfd1c, 0x3d9393ae3d9393ae,
    0x4c26266a4c26266a, 0x6c36365a6c36365a, 0x7e3f3f417e3f3f41, 0xf5f7f702f5f7f702, 0x83cccc4f83cccc4f,
    0x6834345c6834345c, 0x51a5a5f451a5a5f4, 0xd1e5e534d1e5e534, 0xf9f1f108f9f1f108, 0xe2717193e2717193,
    0xabd8d873abd8d873, 0x6231315362313153, 0x2a15153f2a15153f, 0x0804040c0804040c, 0x95c7c75295c7c752,
    0x4623236546232365, 0x9dc3c35e9dc3c35e, 0x3018182830181828, 0x379696a1379696a1, 0x0a05050f0a05050f,
    0x2f9a9ab52f9a9ab5, 0x0e0707090e070709, 0x2412123624121236, 0x1b80809b1b80809b, 0xdfe2e23ddfe2e23d,
    0xcdebeb26cdebeb26, 0x4e2727694e272769, 0x7fb2b2cd7fb2b2cd, 0xea75759fea75759f, 0x1209091b1209091b,
    0x1d83839e1d83839e, 0x582c2c74582c2c74, 0x341a1a2e341a1a2e, 0x361b1b2d361b1b2d, 0xdc6e6eb2dc6e6eb2,
    0xb45a5aeeb45a5aee, 0x5ba0a0fb5ba0a0fb, 0xa45252f6a45252f6, 0x763b3b4d763b3b4d, 0xb7d6d661b7d6d661,
    0x7db3b3ce7db3b3ce, 0x5229297b5229297b, 0xdde3e33edde3e33e, 0x5e2f2f715e2f2f71, 0x1384849713848497,
    0xa65353f5a65353f5, 0xb9d1d168b9d1d168, 0x0000000000000000, 0xc1eded2cc1eded2c, 0x4020206040202060,
    0xe3fcfc1fe3fcfc1f, 0x79b1b1c879b1b1c8, 0xb65b5bedb65b5bed, 0xd46a6abed46a6abe, 0x8dcbcb468dcbcb46,
    0x67bebed967bebed9, 0x7239394b7239394b, 0x944a4ade944a4ade, 0x984c4cd4984c4cd4, 0xb05858e8b05858e8,
    0x85cfcf4a85cfcf4a, 0xbbd0d06bbbd0d06b, 0xc5efef2ac5efef2a, 0x4faaaae54faaaae5, 0xedfbfb16edfbfb16,
    0x864343c5864343c5, 0x9a4d4dd79a4d4dd7, 0x6633335566333355, 0x1185859411858594, 0x8a4545cf8a4545cf,
    0xe9f9f910e9f9f910, 0x0402020604020206, 0xfe7f7f81fe7f7f81, 0xa05050f0a05050f0, 0x783c3c44783c3c44,
    0x259f9fba259f9fba, 0x4ba8a8e34ba8a8e3, 0xa25151f3a25151f3, 0x5da3a3fe5da3a3fe, 0x804040c0804040c0,
    0x058f8f8a058f8f8a, 0x3f9292ad3f9292ad, 0x219d9dbc219d9dbc, 0x7038384870383848, 0xf1f5f504f1f5f504,
    0x63bcbcdf63bcbcdf, 0x77b6b6c177b6b6c1, 0xafdada75afdada75, 0x4221216342212163, 0x2010103020101030,
    0xe5ffff1ae5ffff1a, 0xfdf3f30efdf3f30e, 0xbfd2d26dbfd2d26d, 0x81cdcd4c81cdcd4c, 0x180c0c14180c0c14,
    0x2613133526131335, 0xc3ecec2fc3ecec2f, 0xbe5f5fe1be5f5fe1, 0x359797a2359797a2, 0x884444cc884444cc,
    0x2e1717392e171739, 0x93c4c45793c4c457, 0x55a7a7f255a7a7f2, 0xfc7e7e82fc7e7e82, 0x7a3d3d477a3d3d47,
    0xc86464acc86464ac, 0xba5d5de7ba5d5de7, 0x3219192b3219192b, 0xe6737395e6737395, 0xc06060a0c06060a0,
    0x1981819819818198, 0x9e4f4fd19e4f4fd1, 0xa3dcdc7fa3dcdc7f, 0x4422226644222266, 0x542a2a7e542a2a7e,
    0x3b9090ab3b9090ab, 0x0b8888830b888883, 0x8c4646ca8c4646ca, 0xc7eeee29c7eeee29, 0x6bb8b8d36bb8b8d3,
    0x2814143c2814143c, 0xa7dede79a7dede79, 0xbc5e5ee2bc5e5ee2, 0x160b0b1d160b0b1d, 0xaddbdb76addbdb76,
    0xdbe0e03bdbe0e03b, 0x6432325664323256, 0x743a3a4e743a3a4e, 0x140a0a1e140a0a1e, 0x924949db924949db,
    0x0c06060a0c06060a, 0x4824246c4824246c, 0xb85c5ce4b85c5ce4, 0x9fc2c25d9fc2c25d, 0xbdd3d36ebdd3d36e,
    0x43acacef43acacef, 0xc46262a6c46262a6, 0x399191a8399191a8, 0x319595a4319595a4, 0xd3e4e437d3e4e437,
    0xf279798bf279798b, 0xd5e7e732d5e7e732, 0x8bc8c8438bc8c843, 0x6e3737596e373759, 0xda6d6db7da6d6db7,
    0x018d8d8c018d8d8c, 0xb1d5d564b1d5d564, 0x9c4e4ed29c4e4ed2, 0x49a9a9e049a9a9e0, 0xd86c6cb4d86c6cb4,
    0xac5656faac5656fa, 0xf3f4f407f3f4f407, 0xcfeaea25cfeaea25, 0xca6565afca6565af, 0xf47a7a8ef47a7a8e,
    0x47aeaee947aeaee9, 0x1008081810080818, 0x6fbabad56fbabad5, 0xf0787888f0787888, 0x4a25256f4a25256f,
    0x5c2e2e725c2e2e72, 0x381c1c24381c1c24, 0x57a6a6f157a6a6f1, 0x73b4b4c773b4b4c7, 0x97c6c65197c6c651,
    0xcbe8e823cbe8e823, 0xa1dddd7ca1dddd7c, 0xe874749ce874749c, 0x3e1f1f213e1f1f21, 0x964b4bdd964b4bdd,
    0x61bdbddc61bdbddc, 0x0d8b8b860d8b8b86, 0x0f8a8a850f8a8a85, 0xe0707090e0707090, 0x7c3e3e427c3e3e42,
    0x71b5b5c471b5b5c4, 0xcc6666aacc6666aa, 0x904848d8904848d8, 0x0603030506030305, 0xf7f6f601f7f6f601,
    0x1c0e0e121c0e0e12, 0xc26161a3c26161a3, 0x6a35355f6a35355f, 0xae5757f9ae5757f9, 0x69b9b9d069b9b9d0,
    0x1786869117868691, 0x99c1c15899c1c158, 0x3a1d1d273a1d1d27, 0x279e9eb9279e9eb9, 0xd9e1e138d9e1e138,
    0xebf8f813ebf8f813, 0x2b9898b32b9898b3, 0x2211113322111133, 0xd26969bbd26969bb, 0xa9d9d970a9d9d970,
    0x078e8e89078e8e89, 0x339494a7339494a7, 0x2d9b9bb62d9b9bb6, 0x3c1e1e223c1e1e22, 0x1587879215878792,
    0xc9e9e920c9e9e920, 0x87cece4987cece49, 0xaa5555ffaa5555ff, 0x5028287850282878, 0xa5dfdf7aa5dfdf7a,
    0x038c8c8f038c8c8f, 0x59a1a1f859a1a1f8, 0x0989898009898980, 0x1a0d0d171a0d0d17, 0x65bfbfda65bfbfda,
    0xd7e6e631d7e6e631, 0x844242c6844242c6, 0xd06868b8d06868b8, 0x824141c3824141c3, 0x299999b0299999b0,
    0x5a2d2d775a2d2d77, 0x1e0f0f111e0f0f11, 0x7bb0b0cb7bb0b0cb, 0xa85454fca85454fc, 0x6dbbbbd66dbbbbd6,
    0x2c16163a2c16163a,
};

/* The inverses: (14i, 9i, 13i, 11i), twice. */
static const __u64 fw_aes_open[256] = {
    0x51f4a75051f4a750, 0x7e4165537e416553, 0x1a17a4c31a17a4c3, 0x3a275e963a275e96, 0x3bab6bcb3bab6bcb,
    0x1f9d45f11f9d45f1, 0xacfa58abacfa58ab, 0x4be303934be30393, 0x2030fa552030fa55, 0xad766df6ad766df6,
    0x88cc769188cc7691, 0xf5024c25f5024c25, 0x4fe5d7fc4fe5d7fc, 0xc52acbd7c52acbd7, 0x2635448026354480,
    0xb562a38fb562a38f, 0xdeb15a49deb15a49, 0x25ba1b6725ba1b67, 0x45ea0e9845ea0e98, 0x5dfec0e15dfec0e1,
    0xc32f7502c32f7502, 0x814cf012814cf012, 0x8d4697a38d4697a3, 0x6bd3f9c66bd3f9c6, 0x038f5fe7038f5fe7,
    0x15929c9515929c95, 0xbf6d7aebbf6d7aeb, 0x955259da955259da, 0xd4be832dd4be832d, 0x587421d3587421d3,
    0x49e0692949e06929, 0x8ec9c8448ec9c844, 0x75c2896a75c2896a, 0xf48e7978f48e7978, 0x99583e6b99583e6b,
    0x27b971dd27b971dd, 0xbee14fb6bee14fb6, 0xf088ad17f088ad17, 0xc920ac66c920ac66, 0x7dce3ab47dce3ab4,
    0x63df4a1863df4a18, 0xe51a3182e51a3182, 0x9751336097513360, 0x62537f4562537f45, 0xb16477e0b16477e0,
    0xbb6bae84bb6bae84, 0xfe81a01cfe81a01c, 0xf9082b94f9082b94, 0x7048685870486858, 0x8f45fd198f45fd19,
    0x94de6c8794de6c87, 0x527bf8b7527bf8b7, 0xab73d323ab73d323, 0x724b02e2724b02e2, 0xe31f8f57e31f8f57,
    0x6655ab2a6655ab2a, 0xb2eb2807b2eb2807, 0x2fb5c2032fb5c203, 0x86c57b9a86c57b9a, 0xd33708a5d33708a5,
    0x302887f2302887f2, 0x23bfa5b223bfa5b2, 0x02036aba02036aba, 0xed16825ced16825c, 0x8acf1c2b8acf1c2b,
    0xa779b492a779b492, 0xf307f2f0f307f2f0, 0x4e69e2a14e69e2a1, 0x65daf4cd65daf4cd, 0x0605bed50605bed5,
    0xd134621fd134621f, 0xc4a6fe8ac4a6fe8a, 0x342e539d342e539d, 0xa2f355a0a2f355a0, 0x058ae132058ae132,
    0xa4f6eb75a4f6eb75, 0x0b83ec390b83ec39, 0x4060efaa4060efaa, 0x5e719f065e719f06, 0xbd6e1051bd6e1051,
    0x3e218af93e218af9, 0x96dd063d96dd063d, 0xdd3e05aedd3e05ae, 0x4de6bd464de6bd46, 0x91548db591548db5,
    0x71c45d0571c45d05, 0x0406d46f0406d46f, 0x605015ff605015ff, 0x1998fb241998fb24, 0xd6bde997d6bde997,
    0x894043cc894043cc, 0x67d99e7767d99e77, 0xb0e842bdb0e842bd, 0x07898b8807898b88, 0xe7195b38e7195b38,
    0x79c8eedb79c8eedb, 0xa17c0a47a17c0a47, 0x7c420fe97c420fe9, 0xf8841ec9f8841ec9, 0x0000000000000000,
    0x0980868309808683, 0x322bed48322bed48, 0x1e1170ac1e1170ac, 0x6c5a724e6c5a724e, 0xfd0efffbfd0efffb,
    0x0f8538560f853856, 0x3daed51e3daed51e, 0x362d3927362d3927, 0x0a0fd9640a0fd964, 0x685ca621685ca621,
    0x9b5b54d19b5b54d1, 0x24362e3a24362e3a, 0x0c0a67b10c0a67b1, 0x9357e70f9357e70f, 0xb4ee96d2b4ee96d2,
    0x1b9b919e1b9b919e, 0x80c0c54f80c0c54f, 0x61dc20a261dc20a2, 0x5a774b695a774b69, 0x1c121a161c121a16,
    0xe293ba0ae293ba0a, 0xc0a02ae5c0a02ae5, 0x3c22e0433c22e043, 0x121b171d121b171d, 0x0e090d0b0e090d0b,
    0xf28bc7adf28bc7ad, 0x2db6a8b92db6a8b9, 0x141ea9c8141ea9c8, 0x57f1198557f11985, 0xaf75074caf75074c,
    0xee99ddbbee99ddbb, 0xa37f60fda37f60fd, 0xf701269ff701269f, 0x5c72f5bc5c72f5bc, 0x44663bc544663bc5,
    0x5bfb7e345bfb7e34, 0x8b4329768b432976, 0xcb23c6dccb23c6dc, 0xb6edfc68b6edfc68, 0xb8e4f163b8e4f163,
    0xd731dccad731dcca, 0x4263851042638510, 0x1397224013972240, 0x84c6112084c61120, 0x854a247d854a247d,
    0xd2bb3df8d2bb3df8, 0xaef93211aef93211, 0xc729a16dc729a16d, 0x1d9e2f4b1d9e2f4b, 0xdcb230f3dcb230f3,
    0x0d8652ec0d8652ec, 0x77c1e3d077c1e3d0, 0x2bb3166c2bb3166c, 0xa970b999a970b999, 0x119448fa119448fa,
    0x47e9642247e96422, 0xa8fc8cc4a8fc8cc4, 0xa0f03f1aa0f03f1a, 0x567d2cd8567d2cd8, 0x223390ef223390ef,
    0x87494ec787494ec7, 0xd938d1c1d938d1c1, 0x8ccaa2fe8ccaa2fe, 0x98d40b3698d40b36, 0xa6f581cfa6f581cf,
    0xa57ade28a57ade28, 0xdab78e26dab78e26, 0x3fadbfa43fadbfa4, 0x2c3a9de42c3a9de4, 0x5078920d5078920d,
    0x6a5fcc9b6a5fcc9b, 0x547e4662547e4662, 0xf68d13c2f68d13c2, 0x90d8b8e890d8b8e8, 0x2e39f75e2e39f75e,
    0x82c3aff582c3aff5, 0x9f5d80be9f5d80be, 0x69d0937c69d0937c, 0x6fd52da96fd52da9, 0xcf2512b3cf2512b3,
    0xc8ac993bc8ac993b, 0x10187da710187da7, 0xe89c636ee89c636e, 0xdb3bbb7bdb3bbb7b, 0xcd267809cd267809,
    0x6e5918f46e5918f4, 0xec9ab701ec9ab701, 0x834f9aa8834f9aa8, 0xe6956e65e6956e65, 0xaaffe67eaaffe67e,
    0x21bccf0821bccf08, 0xef15e8e6ef15e8e6, 0xbae79bd9bae79bd9, 0x4a6f36ce4a6f36ce, 0xea9f09d4ea9f09d4,
    0x29b07cd629b07cd6, 0x31a4b2af31a4b2af, 0x2a3f23312a3f2331, 0xc6a59430c6a59430, 0x35a266c035a266c0,
    0x744ebc37744ebc37, 0xfc82caa6fc82caa6, 0xe090d0b0e090d0b0, 0x33a7d81533a7d815, 0xf104984af104984a,
    0x41ecdaf741ecdaf7, 0x7fcd500e7fcd500e, 0x1791f62f1791f62f, 0x764dd68d764dd68d, 0x43efb04d43efb04d,
    0xccaa4d54ccaa4d54, 0xe49604dfe49604df, 0x9ed1b5e39ed1b5e3, 0x4c6a881b4c6a881b, 0xc12c1fb8c12c1fb8,
    0x4665517f4665517f, 0x9d5eea049d5eea04, 0x018c355d018c355d, 0xfa877473fa877473, 0xfb0b412efb0b412e,
    0xb3671d5ab3671d5a, 0x92dbd25292dbd252, 0xe9105633e9105633, 0x6dd647136dd64713, 0x9ad7618c9ad7618c,
    0x37a10c7a37a10c7a, 0x59f8148e59f8148e, 0xeb133c89eb133c89, 0xcea927eecea927ee, 0xb761c935b761c935,
    0xe11ce5ede11ce5ed, 0x7a47b13c7a47b13c, 0x9cd2df599cd2df59, 0x55f2733f55f2733f, 0x1814ce791814ce79,
    0x73c737bf73c737bf, 0x53f7cdea53f7cdea, 0x5ffdaa5b5ffdaa5b, 0xdf3d6f14df3d6f14, 0x7844db867844db86,
    0xcaaff381caaff381, 0xb968c43eb968c43e, 0x3824342c3824342c, 0xc2a3405fc2a3405f, 0x161dc372161dc372,
    0xbce2250cbce2250c, 0x283c498b283c498b, 0xff0d9541ff0d9541, 0x39a8017139a80171, 0x080cb3de080cb3de,
    0xd8b4e49cd8b4e49c, 0x6456c1906456c190, 0x7bcb84617bcb8461, 0xd532b670d532b670, 0x486c5c74486c5c74,
    0xd0b85742d0b85742,
};

static const __u8 fw_aes_unbox[256] = {
    0x52, 0x09, 0x6a, 0xd5, 0x30, 0x36, 0xa5, 0x38, 0xbf, 0x40, 0xa3, 0x9e, 0x81, 0xf3, 0xd7, 0xfb, 0x7c, 0xe3, 0x39,
    0x82, 0x9b, 0x2f, 0xff, 0x87, 0x34, 0x8e, 0x43, 0x44, 0xc4, 0xde, 0xe9, 0xcb, 0x54, 0x7b, 0x94, 0x32, 0xa6, 0xc2,
    0x23, 0x3d, 0xee, 0x4c, 0x95, 0x0b, 0x42, 0xfa, 0xc3, 0x4e, 0x08, 0x2e, 0xa1, 0x66, 0x28, 0xd9, 0x24, 0xb2, 0x76,
    0x5b, 0xa2, 0x49, 0x6d, 0x8b, 0xd1, 0x25, 0x72, 0xf8, 0xf6, 0x64, 0x86, 0x68, 0x98, 0x16, 0xd4, 0xa4, 0x5c, 0xcc,
    0x5d, 0x65, 0xb6, 0x92, 0x6c, 0x70, 0x48, 0x50, 0xfd, 0xed, 0xb9, 0xda, 0x5e, 0x15, 0x46, 0x57, 0xa7, 0x8d, 0x9d,
    0x84, 0x90, 0xd8, 0xab, 0x00, 0x8c, 0xbc, 0xd3, 0x0a, 0xf7, 0xe4, 0x58, 0x05, 0xb8, 0xb3, 0x45, 0x06, 0xd0, 0x2c,
    0x1e, 0x8f, 0xca, 0x3f, 0x0f, 0x02, 0xc1, 0xaf, 0xbd, 0x03, 0x01, 0x13, 0x8a, 0x6b, 0x3a, 0x91, 0x11, 0x41, 0x4f,
    0x67, 0xdc, 0xea, 0x97, 0xf2, 0xcf, 0xce, 0xf0, 0xb4, 0xe6, 0x73, 0x96, 0xac, 0x74, 0x22, 0xe7, 0xad, 0x35, 0x85,
    0xe2, 0xf9, 0x37, 0xe8, 0x1c, 0x75, 0xdf, 0x6e, 0x47, 0xf1, 0x1a, 0x71, 0x1d, 0x29, 0xc5, 0x89, 0x6f, 0xb7, 0x62,
    0x0e, 0xaa, 0x18, 0xbe, 0x1b, 0xfc, 0x56, 0x3e, 0x4b, 0xc6, 0xd2, 0x79, 0x20, 0x9a, 0xdb, 0xc0, 0xfe, 0x78, 0xcd,
    0x5a, 0xf4, 0x1f, 0xdd, 0xa8, 0x33, 0x88, 0x07, 0xc7, 0x31, 0xb1, 0x12, 0x10, 0x59, 0x27, 0x80, 0xec, 0x5f, 0x60,
    0x51, 0x7f, 0xa9, 0x19, 0xb5, 0x4a, 0x0d, 0x2d, 0xe5, 0x7a, 0x9f, 0x93, 0xc9, 0x9c, 0xef, 0xa0, 0xe0, 0x3b, 0x4d,
    0xae, 0x2a, 0xf5, 0xb0, 0xc8, 0xeb, 0xbb, 0x3c, 0x83, 0x53, 0x99, 0x61, 0x17, 0x2b, 0x04, 0x7e, 0xba, 0x77, 0xd6,
    0x26, 0xe1, 0x69, 0x14, 0x63, 0x55, 0x21, 0x0c, 0x7d,
};

static __always_inline __u64 fw_aes_mix(const __u64 *table, __u64 a, __u64 b, __u64 c, __u64 d) {
    return table[a >> 24 & 255] ^ table[b >> 16 & 255] >> 8 ^ table[c >> 8 & 255] >> 16 ^ table[d & 255] >> 24;
}

static __always_inline __u32 fw_aes_box(__u64 a, __u64 b, __u64 c, __u64 d) {
    return (__u32)((fw_aes_seal[a >> 24 & 255] << 8 & 0xff000000) | (fw_aes_seal[b >> 16 & 255] & 0x00ff0000) |
                   (fw_aes_seal[c >> 8 & 255] & 0x0000ff00) | (fw_aes_seal[d & 255] >> 8 & 0x000000ff));
}

static __always_inline __u32 fw_aes_box_back(__u64 a, __u64 b, __u64 c, __u64 d) {
    return (__u32)fw_aes_unbox[a >> 24 & 255] << 24 | (__u32)fw_aes_unbox[b >> 16 & 255] << 16 |
           (__u32)fw_aes_unbox[c >> 8 & 255] << 8 | fw_aes_unbox[d & 255];
}

/* Both halves of the block, the first byte the highest: the first is given back. keys: 44 words, by fw_aes_keys(). */
static __noinline __u64 fw_aes_encrypt(const __u32 *keys, __u64 high, __u64 *low) {
    __u32 s0 = (__u32)(high >> 32) ^ keys[0], s1 = (__u32)high ^ keys[1];
    __u32 s2 = (__u32)(*low >> 32) ^ keys[2], s3 = (__u32)*low ^ keys[3];
    for (int round = 1; round < 10; round++) {
        keys += 4;
        const __u32 t0 = (__u32)fw_aes_mix(fw_aes_seal, s0, s1, s2, s3) ^ keys[0];
        const __u32 t1 = (__u32)fw_aes_mix(fw_aes_seal, s1, s2, s3, s0) ^ keys[1];
        const __u32 t2 = (__u32)fw_aes_mix(fw_aes_seal, s2, s3, s0, s1) ^ keys[2];
        s3 = (__u32)fw_aes_mix(fw_aes_seal, s3, s0, s1, s2) ^ keys[3];
        s0 = t0;
        s1 = t1;
        s2 = t2;
    }
    *low = (__u64)(fw_aes_box(s2, s3, s0, s1) ^ keys[6]) << 32 | (fw_aes_box(s3, s0, s1, s2) ^ keys[7]);
    return (__u64)(fw_aes_box(s0, s1, s2, s3) ^ keys[4]) << 32 | (fw_aes_box(s1, s2, s3, s0) ^ keys[5]);
}

/* keys: by fw_aes_keys_back(). */
static __always_inline __u64 fw_aes_decrypt(const __u32 *keys, __u64 high, __u64 *low) {
    __u32 s0 = (__u32)(high >> 32) ^ keys[0], s1 = (__u32)high ^ keys[1];
    __u32 s2 = (__u32)(*low >> 32) ^ keys[2], s3 = (__u32)*low ^ keys[3];
    for (int round = 1; round < 10; round++) {
        keys += 4;
        const __u32 t0 = (__u32)fw_aes_mix(fw_aes_open, s0, s3, s2, s1) ^ keys[0];
        const __u32 t1 = (__u32)fw_aes_mix(fw_aes_open, s1, s0, s3, s2) ^ keys[1];
        const __u32 t2 = (__u32)fw_aes_mix(fw_aes_open, s2, s1, s0, s3) ^ keys[2];
        s3 = (__u32)fw_aes_mix(fw_aes_open, s3, s2, s1, s0) ^ keys[3];
        s0 = t0;
        s1 = t1;
        s2 = t2;
    }
    *low = (__u64)(fw_aes_box_back(s2, s1, s0, s3) ^ keys[6]) << 32 | (fw_aes_box_back(s3, s2, s1, s0) ^ keys[7]);
    return (__u64)(fw_aes_box_back(s0, s3, s2, s1) ^ keys[4]) << 32 | (fw_aes_box_back(s1, s0, s3, s2) ^ keys[5]);
}

#ifndef __bpf__

/* The key schedule, for user space. */
static inline void fw_aes_keys(__u32 keys[44], const __u8 key[16]) {
    __u32 constant = 1;
    for (int i = 0; i < 4; i++)
        keys[i] = FW_BE32(FW_LOAD(__u32, key + 4 * i));
    for (int i = 4; i < 44; i++) {
        __u32 t = keys[i - 1];
        if (i % 4 == 0) {
            t = fw_aes_box(t << 8 | t >> 24, t << 8 | t >> 24, t << 8 | t >> 24, t << 8 | t >> 24) ^ constant << 24;
            constant = (constant << 1 ^ (constant >> 7) * 0x11b) & 0xff;
        }
        keys[i] = keys[i - 4] ^ t;
    }
}

/* The same for the equivalent inverse cipher (FIPS 197, 5.3.5): the rounds backwards, the inner ones mixed. */
static inline void fw_aes_keys_back(__u32 back[44], const __u8 key[16]) {
    __u32 keys[44];
    fw_aes_keys(keys, key);
    for (int i = 0; i < 44; i++) {
        const __u32 k = keys[40 - i / 4 * 4 + i % 4];
        const __u64 boxed = fw_aes_box(k, k, k, k); /* so that the table's own inverse S-box cancels out */
        back[i] = i < 4 || i >= 40 ? k : (__u32)fw_aes_mix(fw_aes_open, boxed, boxed, boxed, boxed);
    }
}

#endif

#endif
