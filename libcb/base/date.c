#include "base/date.h"
#include <inttypes.h>
#include <stdio.h>

/* Days since 1970 to a date: Howard Hinnant's civil_from_days, in whole numbers. Years begin in March, so that the leap
 * day is the last of a year, and 400 of them make an era. */
void cb_date_text(char out[CB_DATE_BYTES], int64_t ms) {
    int64_t days = ms / 86400000, rest = ms % 86400000;
    if (rest < 0) rest += 86400000, days--;
    int64_t z = days + 719468, era = (z >= 0 ? z : z - 146096) / 146097;
    int64_t doe = z - era * 146097, yoe = (doe - doe / 1460 + doe / 36524 - doe / 146096) / 365;
    int64_t doy = doe - (365 * yoe + yoe / 4 - yoe / 100), mp = (5 * doy + 2) / 153;
    int day = (int)(doy - (153 * mp + 2) / 5 + 1), month = (int)(mp < 10 ? mp + 3 : mp - 9), s = (int)(rest / 1000);
    int64_t year = yoe + era * 400 + (month <= 2);
    snprintf(out, CB_DATE_BYTES, "%04" PRId64 "-%02d-%02dT%02d:%02d:%02d.%03dZ", year, month, day, s / 3600,
             s / 60 % 60, s % 60, (int)(rest % 1000));
}
