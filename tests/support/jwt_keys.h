/* Keys of tests: RSA of these tests, the others of RFC 7515 A.3 and RFC 8037 A.1. Known to the world. */
#ifndef TEST_JWT_KEYS_H
#define TEST_JWT_KEYS_H

#define RSA_N                                                                                                          \
    "2GsJvq5_pc3FlyfzpqRr6MyQ6mrDSUigdtV_05YH-5lDOwWybKWdnovQpfSSDpzo2S1E--6B_IaEmJ0F5k_pbxUtW75ebTFICgpWyfBW-Ydcom-"  \
    "tkJTVcYK9290l6X_EdsC_CLYFmctt1eb_Fki8kRcY6m5TMw_825xj51074h5CHdnQ1-WCFpEWJ-UrKDljz2Dxt5KUr4tksoD5McFrGWke-"       \
    "nq1jXFuzNNPvPM6BP2r-oFp2CUvf7RnOunisTtHcRb3CBnCxzRBhx_WOq7HKioR6CgL1sKgE_go8iy_rKKC4zQz-tkTAtQP5QsztAjSLab7F9_"   \
    "2gdrLuCBtbCNVKw"
#define RSA_PUBLIC "{\"kty\":\"RSA\",\"n\":\"" RSA_N "\",\"e\":\"AQAB\"}"
#define RSA_PRIVATE_PART                                                                                               \
    "\"d\":\"Fv5QW70IfOI-"                                                                                             \
    "8w9gmLzxZhuN7goH05puyhFm8mEHWhjvhq7VRSvXckfilC9G8VyEdMaVhLrTfrQAFILiZJTq9U1ns06nk6xfvglZLT1m0D4sfmmlJC5b-"        \
    "yJr75cwdv2HLyLNaSyFrdBqTAat5X0246dzkzzDhDJXqDGWf7dtLFnefAk_"                                                      \
    "au2pUF5Oq4Ic2bCwR6szQuD7HnffTi5W7tQkIqCIMVihTSbVprM2iJPWOJdFR-LYu1DtzkNVdN42KXyQxIGiR9SEC_"                       \
    "kTqpzoB7CU0nUPopS9KP0A83-am3D-hNivsWCLXecVhUsmIpakx7ZFh4VumBlm_Y1NaVuxdu4iQQ\",\"p\":\"_"                         \
    "kYp1q1sJHlYfNRbzkKODurgbB2LDrzIFIGwxTF6nQOGxiD72RG095qsXYFVdFOlJ7Wv_CGXQ2AwaEcHBOt-Feyi3ixxHf9GCd0lRqKEH0T9mi0S-" \
    "IO_JOjZFzwhC6VEghitkgGmhnuoiwSx7-zNwH8mut-gjr_oZi_lCAJl5uE\",\"q\":\"2eMYOm0N0SGOE_Joz971RMaq14NMmy6xAyCvqUcVr_"  \
    "IyZIurQCBnsOYD5l2ALuaQhAF1YZMNFzSdMNYePe0NOSARdl-CHiB1PAzuXijH2PB3D-FzuFbLYPkGpyAhLQff1wXbbIlNe5Cq7vSKjdkiPkk_"   \
    "3qkeYuf9GMcY_WqjGYs\",\"dp\":\"V2LPoCrLnqFhas0km_"                                                                \
    "c9kRzhceaZUsBIVtvXX33IsMt0dwUA6LHwKqQqlpwLPUY93S7Qw2rb7FjTahL285bnJyvDMW2-lluTu3IYDHVvyLtSGLli6quEdm_bo-"         \
    "OTS8hJihhnFmWg0FkRLG25pUYR1BUev1x5dnW3rd7J7H2-faE\",\"dq\":\"WG3IWX4FC4lYxlOtoh_U3zLaB1lsb9bFVIWhhUwqSxw6w3_"     \
    "D4uTD8JGJp6bu7Rn6MPj-kLlDqNVbroRYBb39jd-r9qTQhDWcHuEIpQJcCXmeeL2BX6EqLZMj1hQ-Iq59dCEWarhWz_"                      \
    "1owk5RJTyonyrPVyjAAlgw6itzwvXSd_0\",\"qi\":"                                                                      \
    "\"g6qcK2LLvxvNzA7jBeB3tGrH7QVZNgT77aT5kpuDYHlvWk1HPzS94OE6TsbhxAmgTp8uFkb2kLt9LIucS4ydyA0M7iowYA6EODv1O2nor4_"    \
    "GwhGvag6mLpNoIl7aUMsINhyb-x5WLw5B4dXRQmOCPst9WfV9aK62pEGtIyNJ_SU\""
#define RSA_1024_N                                                                                                     \
    "xhN1xQCgznaWdzJ_F8Ifm2CbY13u5AX_C2UWe3d6ad_aHgUUbCLqQER5x5OClqnmzwAw_Nk3eg_"                                      \
    "DMNXNFwxwzD6QnSkwGSZEHs7lG2b8zouoUJhkvrx6i_lPRfTbqNXMKL9oqh289l7cgbX5bqlSE7ylnfUiNJwbERFOYPUY050"
#define RSA_PUBLIC_PEM                                                                                                 \
    "-----BEGIN PUBLIC KEY-----\n"                                                                                     \
    "MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEA2GsJvq5/pc3FlyfzpqRr\n"                                               \
    "6MyQ6mrDSUigdtV/05YH+5lDOwWybKWdnovQpfSSDpzo2S1E++6B/IaEmJ0F5k/p\n"                                               \
    "bxUtW75ebTFICgpWyfBW+Ydcom+tkJTVcYK9290l6X/EdsC/CLYFmctt1eb/Fki8\n"                                               \
    "kRcY6m5TMw/825xj51074h5CHdnQ1+WCFpEWJ+UrKDljz2Dxt5KUr4tksoD5McFr\n"                                               \
    "GWke+nq1jXFuzNNPvPM6BP2r+oFp2CUvf7RnOunisTtHcRb3CBnCxzRBhx/WOq7H\n"                                               \
    "KioR6CgL1sKgE/go8iy/rKKC4zQz+tkTAtQP5QsztAjSLab7F9/2gdrLuCBtbCNV\n"                                               \
    "KwIDAQAB\n"                                                                                                       \
    "-----END PUBLIC KEY-----\n"
#define EC_XY                                                                                                          \
    "\"x\":\"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU\",\"y\":\"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0\""
#define EC_D      "\"d\":\"jpsQnnGQmL-YBIffH1136cspYG6-0iY7X1fCE9-E9LI\""
#define ED_X      "\"x\":\"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo\""
#define ED_D      "\"d\":\"nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A\""
#define HS_SECRET "a secret of exactly 32 bytes ...."

#endif
